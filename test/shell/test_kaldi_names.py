"""The scripts in utils/ under Kaldi's names, called as a recipe calls them."""

import os
import subprocess
from pathlib import Path

import pytest
from factories import make_data_dir, write_table

from speechkit.bin.kaldi_names import SCRIPTS
from speechkit.data.kaldi_dir import read_data_dir

UTILS = Path(__file__).resolve().parents[2] / "utils"


def script(name: str, *arguments, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([UTILS / name, *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd)


def good(name: str, *arguments, **options) -> bytes:
    done = script(name, *arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_every_script_is_there_and_explains_itself():
    for name in SCRIPTS:
        assert os.access(UTILS / name, os.X_OK)
        assert b"usage" in good(name, "--help")


def test_scripts_work_through_links_and_from_elsewhere(tmp_path):
    path = make_data_dir(tmp_path / "d", 2, 1, audio=False)
    (tmp_path / "utils").symlink_to(UTILS)
    done = subprocess.run(
        ["utils/utt2spk_to_spk2utt.pl", "d/utt2spk"], cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stdout == (path / "spk2utt").read_bytes()


def test_validate(tmp_path):
    path = make_data_dir(tmp_path / "d", 4, 2)
    done = script("validate_data_dir.sh", path)
    assert (
        done.returncode == 1 and b"feats.scp: missing (if this is by design, give --no-feats)" in done.stderr
    )
    good("validate_data_dir.sh", "--no-feats", path)
    (path / "text").unlink()
    assert script("validate_data_dir.sh", "--no-feats", path).returncode == 1
    good("validate_data_dir.sh", "--no-feats", "--no-text", path)
    (path / "wav.scp").unlink()
    assert script("validate_data_dir.sh", "--no-feats", "--no-text", path).returncode == 1
    good("validate_data_dir.sh", "--no-feats", "--no-text", "--no-wav", path)


def test_non_print(tmp_path):
    path = make_data_dir(tmp_path / "d", 1, 1, texts=["a\u200bb"])
    done = script("validate_data_dir.sh", "--no-feats", path)
    assert done.returncode == 1 and b"text:1: characters that are not printable: U+200B" in done.stderr
    good("validate_data_dir.sh", "--no-feats", "--non-print", path)


def test_fix(tmp_path):
    path = make_data_dir(tmp_path / "train", 10, 2)
    (path / "spk2utt").unlink()
    lines = (path / "text").read_text().splitlines()
    (path / "text").write_text("\n".join(reversed(lines[1:])))
    done = script("fix_data_dir.sh", path)
    assert done.returncode == 1 and b"1 of 10 utterances dropped" in done.stderr
    good("fix_data_dir.sh", path, "--max-reject", "0.2")
    assert len(read_data_dir(path).utterances) == 9


def test_subset(tmp_path):
    path = make_data_dir(tmp_path / "d", 9, 3, seconds=[1.0 - 0.1 * n for n in range(9)])
    ids = read_data_dir(path).utterances
    out = tmp_path / "out"

    def chosen(*arguments) -> list[str]:
        good("subset_data_dir.sh", *arguments, out)
        return read_data_dir(out).utterances

    assert chosen("--first", path, 2) == ids[:2]
    assert chosen("--last", path, 2) == ids[-2:]
    assert chosen("--shortest", path, 2) == ["s01-002", "s02-002"]
    assert chosen("--per-spk", path, 1) == ["s00-000", "s01-000", "s02-000"]
    assert len(set(u.split("-")[0] for u in chosen("--speakers", path, 4))) == 2
    assert len(chosen(path, 5)) == 5
    (tmp_path / "list").write_text("s01-001\ns00-002\n")
    assert chosen("--utt-list", tmp_path / "list", path) == ["s00-002", "s01-001"]
    (tmp_path / "list").write_text("s02\n")
    assert chosen("--spk-list", tmp_path / "list", path) == ["s02-000", "s02-001", "s02-002"]
    for arguments in (
        (path, 2),
        ("--first", "--last", path, 2, out),
        (path, "two", out),
        ("--frist", path, 2, out),
    ):
        assert script("subset_data_dir.sh", *arguments).returncode == 2
    done = script("subset_data_dir.sh", "--first", path, 100, out)
    assert done.returncode == 1 and b"cannot take 100 utterances of 9" in done.stderr


def test_combine_and_copy(tmp_path):
    a = make_data_dir(tmp_path / "a", 4, 2, prefix="a", audio=False)
    b = make_data_dir(tmp_path / "b", 4, 2, prefix="b", audio=False)
    write_table(b / "utt2lang", dict.fromkeys(read_data_dir(b).utterances, "en"))
    good("combine_data.sh", tmp_path / "c", a, b)
    assert len(read_data_dir(tmp_path / "c").utterances) == 8
    done = script("combine_data.sh", "--extra-files", "utt2lang", tmp_path / "e", a, b)
    assert done.returncode == 1 and b"a/utt2lang: missing, named by --extra-files" in done.stderr
    good("copy_data_dir.sh", "--utt-prefix=sp0.9-", "--spk-prefix", "sp0.9-", a, tmp_path / "d")
    assert read_data_dir(tmp_path / "d").speakers == ["sp0.9-as00", "sp0.9-as01"]
    good("copy_data_dir.sh", "--utt-suffix=-x", a, tmp_path / "f")
    assert read_data_dir(tmp_path / "f").utterances[0] == "as00-000-x"


def test_split(tmp_path):
    path = make_data_dir(tmp_path / "d", 6, 2, segments=True, audio=False)
    good("split_data.sh", path, 2)
    good("split_data.sh", "--per-utt", path, 3)
    assert read_data_dir(path / "split2" / "2").speakers == ["s01"]
    assert len(read_data_dir(path / "split3utt" / "3").utterances) == 2
    assert script("split_data.sh", path, 7).returncode == 1
    assert script("split_data.sh", path).returncode == 2


def test_utt2dur(tmp_path):
    path = make_data_dir(tmp_path / "d", 2, 1, seconds=[0.5, 0.25])
    good("get_utt2dur.sh", path)
    assert (path / "utt2dur").read_text() == "s00-000 0.500000\ns00-001 0.250000\n"
    read_data_dir(path)


def test_speaker_lists(tmp_path):
    utt2spk, spk2utt = b"u1 b\nu2 a\nu3 b\n", b"b u1 u3\na u2\n"
    assert good("utt2spk_to_spk2utt.pl", stdin=utt2spk) == spk2utt
    assert good("spk2utt_to_utt2spk.pl", stdin=spk2utt) == b"u1 b\nu3 b\nu2 a\n"
    (tmp_path / "utt2spk").write_bytes(utt2spk)
    assert good("utt2spk_to_spk2utt.pl", tmp_path / "utt2spk") == spk2utt
    for name, stdin, message in (
        ("utt2spk_to_spk2utt.pl", b"a b\na b c\n", b"standard input:2: expected 2 columns, found 3"),
        ("spk2utt_to_utt2spk.pl", b"a b\nc\n", b"standard input:2: a speaker without utterances"),
        ("spk2utt_to_utt2spk.pl", b"\n", b"standard input:1: blank line"),
    ):
        done = script(name, stdin=stdin)
        assert done.returncode == 1 and message in done.stderr and not done.stdout


def test_filter(tmp_path):
    (tmp_path / "ids").write_bytes(b"u1 whatever\nu3\n")
    scp = b"u1 x  y\nu2 x\nu3\tb\xff\n"  # bytes pass through unchanged
    assert good("filter_scp.pl", tmp_path / "ids", stdin=scp) == b"u1 x  y\nu3\tb\xff\n"
    assert good("filter_scp.pl", "--exclude", tmp_path / "ids", stdin=scp) == b"u2 x\n"
    (tmp_path / "ids").write_bytes(b"x\n")
    (tmp_path / "scp").write_bytes(scp)
    assert good("filter_scp.pl", "-f", 2, tmp_path / "ids", tmp_path / "scp") == b"u1 x  y\nu2 x\n"
    done = script("filter_scp.pl", "-f", 3, tmp_path / "ids", tmp_path / "scp")
    assert done.returncode == 1 and b"scp:2: has no field 3" in done.stderr
    assert script("filter_scp.pl", tmp_path / "none").returncode == 1
    assert script("filter_scp.pl", "-f", 0, tmp_path / "ids").returncode == 2


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_missing_source_is_one_line(tmp_path, name):
    positional = {
        "subset_data_dir.sh": ["none", 1, "o"],
        "combine_data.sh": ["o", "none"],
        "copy_data_dir.sh": ["none", "o"],
    }
    arguments = positional.get(name, ["none", 2] if name == "split_data.sh" else ["none"])
    done = script(name, *(["--no-feats"] if name.startswith("validate") else []), *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr and b"none" in done.stderr and done.stderr.count(b"\n") == 1
    assert not (tmp_path / "o").exists()
