"""Reading and writing data directories."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factories import make_data_dir, write_table

from speechkit.data import kaldi_dir
from speechkit.data.kaldi_dir import DataDir, Segment, read_data_dir, write_data_dir
from speechkit.errors import InputError, ProblemsError

ROOT = Path(__file__).resolve().parents[3]


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file below a directory with its content."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_reads_what_stands_in_the_files(tmp_path):
    path = make_data_dir(tmp_path / "d", 4, 2, texts=["a", "b c", "", "ü"], audio=False)
    write_table(path / "utt2lang", {"s00-000": "en", "s00-001": "de", "s01-000": "en", "s01-001": "sw"})
    write_table(path / "spk2gender", {"s00": "f", "s01": "m"})
    data = read_data_dir(path)
    assert data.utterances == ["s00-000", "s00-001", "s01-000", "s01-001"]
    assert data.speakers == ["s00", "s01"]
    assert data.text == {"s00-000": "a", "s01-000": "b c", "s00-001": "", "s01-001": "ü"}
    assert data.wav["s01-001"] == str(path / "audio/s01-001.wav")
    assert data.spk2utt == {"s00": ["s00-000", "s00-001"], "s01": ["s01-000", "s01-001"]}
    assert data.tables["utt2lang"]["s01-001"] == "sw" and data.tables["spk2gender"]["s01"] == "m"
    assert not data.segments and data.recording("s00-001") == "s00-001"


def test_reads_segments(tmp_path):
    path = make_data_dir(tmp_path / "d", 4, 2, seconds=1.5, segments=True, audio=False)
    data = read_data_dir(path)
    assert data.segments["s01-001"] == Segment("s01", 1.5, 3.0)
    assert data.recording("s01-001") == "s01"


def test_sorted_by_code_point_like_sort_in_the_c_locale(tmp_path):
    ids = ["b", "B", "a-1", "a1", "ä", "z", "Z", "a_1", "ﬀ", "\U0001f600", "\uffee"]
    data = DataDir(wav=dict.fromkeys(ids, "x.wav"), text=dict.fromkeys(ids, "w"), utt2spk={i: i for i in ids})
    write_data_dir(data, tmp_path / "d")
    for name in ("wav.scp", "text", "utt2spk", "spk2utt"):
        subprocess.run(
            ["sort", "-c", tmp_path / "d" / name], env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, check=True
        )
    assert list(read_data_dir(tmp_path / "d").text) == sorted(ids)


def test_writing_keeps_what_is_no_table_and_removes_stale_tables(tmp_path):
    path = make_data_dir(tmp_path / "d", 4, 2)
    write_table(path / "utt2lang", dict.fromkeys(read_data_dir(path).utterances, "en"))
    (path / "ledger.jsonl").write_text("{}\n")
    (path / "cmvn.json").write_text("{}\n")
    before = snapshot(path)
    data = read_data_dir(path)
    del data.tables["utt2lang"]
    write_data_dir(data.select(["s00-000"]), path)
    after = snapshot(path)
    assert set(after) == set(before) - {"utt2lang"}
    assert {n: c for n, c in after.items() if n.startswith(("audio", "ledger", "cmvn"))} == {
        n: c for n, c in before.items() if n.startswith(("audio", "ledger", "cmvn"))
    }
    assert after["text"].count(b"\n") == 1 and after["spk2utt"] == b"s00 s00-000\n"


def test_select_takes_only_the_recordings_and_speakers_needed(tmp_path):
    path = make_data_dir(tmp_path / "d", 6, 3, segments=True, audio=False)
    write_table(path / "spk2gender", {"s00": "f", "s01": "m", "s02": "f"})
    write_table(path / "reco2dur", {"s00": "2", "s01": "2", "s02": "2"})
    part = read_data_dir(path).select(["s02-001", "s00-000"])
    assert list(part.wav) == ["s00", "s02"] and list(part.segments) == ["s00-000", "s02-001"]
    assert part.tables == {"spk2gender": {"s00": "f", "s02": "f"}, "reco2dur": {"s00": "2", "s02": "2"}}
    write_data_dir(part, tmp_path / "part")
    assert read_data_dir(tmp_path / "part").rows() == part.rows()


def test_select_of_an_unknown_utterance_says_which(tmp_path):
    data = read_data_dir(make_data_dir(tmp_path / "d", audio=False))
    with pytest.raises(InputError, match="no such utterance: nobody"):
        data.select(["s00-000", "nobody"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.text.update({"s00-000": "two\nlines"}), "text: not writable as one line|not in utt2spk"),
        (lambda d: d.text.update({"s00-000": "bell \x07"}), "text:1: control character"),
        (lambda d: d.text.update({"s00-000": "lone \ud800"}), "text: not writable as UTF-8"),
        (
            lambda d: d.text.pop("s00-001"),
            r"text: utterance of utt2spk is missing: speechkit fix drops it \(s00-001\)",
        ),
        (lambda d: d.utt2spk.update({"s00-000": "two words"}), "utt2spk:1: expected one column"),
        (lambda d: d.utt2spk.update({"a/b": "s00"}), "an id must not contain '/'"),
        (lambda d: d.wav.update({"s00-000": ""}), "wav.scp:1: no value after the id"),
        (lambda d: d.tables.update({"../utt2x": {"s00-000": "1"}}), "not the name of a table"),
        (lambda d: d.utt2spk.clear(), "utt2spk: missing"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_refuses_to_write_what_it_would_not_read(tmp_path, change, message, exists):
    source = make_data_dir(tmp_path / "source", audio=False)
    data = read_data_dir(source)
    target = make_data_dir(tmp_path / "target") if exists else tmp_path / "target"
    before = snapshot(tmp_path)
    change(data)
    with pytest.raises(ProblemsError, match=message):
        write_data_dir(data, target)
    assert snapshot(tmp_path) == before


def test_a_line_that_hides_another_row_is_caught(tmp_path):
    data = read_data_dir(make_data_dir(tmp_path / "d", audio=False))
    last = data.text.pop("s00-001")
    data.text["s00-000"] += f"\ns00-001 {last}"
    with pytest.raises(ProblemsError, match="not writable as one line"):
        write_data_dir(data, tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_a_full_disk_leaves_the_old_tables(tmp_path, monkeypatch):
    path = make_data_dir(tmp_path / "d")
    data, before = read_data_dir(path), snapshot(path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kaldi_dir.os, "fsync", full)
    with pytest.raises(InputError, match="no space left"):
        write_data_dir(data.select(["s00-000"]), path)
    assert snapshot(path) == before and not list(path.glob(".*"))


def test_a_reader_finishes_what_a_killed_writer_began(tmp_path):
    """The state between the commit and the last rename, made by hand."""
    path = make_data_dir(tmp_path / "d", 4, 2, audio=False)
    write_table(path / "utt2lang", dict.fromkeys(read_data_dir(path).utterances, "en"))
    small = read_data_dir(path).select(["s00-000"])
    del small.tables["utt2lang"]
    write_data_dir(small, tmp_path / "other")
    ready = path / ".tables.ready"
    ready.mkdir()
    (ready / ".names").write_text("wav.scp\nutt2spk\ntext\nspk2utt")
    for name in ("utt2spk", "text", "spk2utt"):
        (ready / name).write_bytes((tmp_path / "other" / name).read_bytes())
    (path / "wav.scp").write_bytes((tmp_path / "other" / "wav.scp").read_bytes())  # was already moved
    assert read_data_dir(path).utterances == ["s00-000"]
    assert sorted(os.listdir(path)) == ["spk2utt", "text", "utt2spk", "wav.scp"]


def test_killed_at_any_moment_the_directory_is_old_or_new(tmp_path):
    path = make_data_dir(tmp_path / "d", 40, 4, audio=False)
    full = read_data_dir(path)
    half = full.select(full.utterances[::2])
    expected = [full.rows(), half.rows()]
    write_data_dir(full, tmp_path / "full")
    write_data_dir(half, tmp_path / "half")
    code = (
        "import sys; from speechkit.data.kaldi_dir import *\n"
        "a, b = read_data_dir(sys.argv[1]), read_data_dir(sys.argv[2])\n"
        "print('go', flush=True)\n"
        "while True:\n  write_data_dir(a, sys.argv[3]); write_data_dir(b, sys.argv[3])\n"
    )
    arguments = [sys.executable, "-c", code, tmp_path / "full", tmp_path / "half", path]
    seen = set()
    for attempt in range(12):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout.readline() == b"go\n"
        time.sleep(0.003 + 0.0037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        seen.add(expected.index(read_data_dir(path).rows()))
    assert seen <= {0, 1}
    write_data_dir(half, path)
    assert not [name for name in os.listdir(path) if name.startswith(".tables.ready")]


def test_a_named_pipe_among_the_tables_does_not_block(tmp_path):
    path = make_data_dir(tmp_path / "d", audio=False)
    os.mkfifo(path / "utt2lang")
    with pytest.raises(ProblemsError, match="utt2lang: not a regular file"):
        read_data_dir(path)
