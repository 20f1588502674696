"""Broken data directories: each is refused by the reader and by `speechkit validate`, at file and line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import make_data_dir, make_wave, write_table

from speechkit.bin.__main__ import main
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.errors import InputError, ProblemsError


def replace(name: str, old: bytes, new: bytes, count: int = 1) -> Callable[[Path], None]:
    """A change of one table; it must have something to change."""

    def change(path: Path) -> None:
        content = (path / name).read_bytes()
        assert old in content
        (path / name).write_bytes(content.replace(old, new, count))

    return change


def put(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(content)


def append(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes((path / name).read_bytes() + content)


def drop_line(name: str, number: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        lines = (path / name).read_bytes().splitlines(keepends=True)
        (path / name).write_bytes(b"".join(lines[: number - 1] + lines[number:]))

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def table(name: str, **rows: str) -> Callable[[Path], None]:
    return lambda path: write_table(
        path / name, {key.replace("_", "-"): value for key, value in rows.items()}
    )


def folder_instead(path: Path) -> None:
    (path / "text").unlink()
    (path / "text").mkdir()


def dangling(path: Path) -> None:
    (path / "text").unlink()
    (path / "text").symlink_to(path / "nowhere")


ALL = dict(s00_000="x", s00_001="x", s01_000="x", s01_001="x")
# name -> (change of a good directory, expected beginning of a line after the directory's path)
READER = {
    "no utt2spk": (remove("utt2spk"), "/utt2spk: missing"),
    "no spk2utt": (remove("spk2utt"), "/spk2utt: missing: speechkit fix makes it"),
    "no wav.scp": (remove("wav.scp"), "/wav.scp: missing, and so is feats.scp"),
    "empty text": (put("text", b""), "/text: empty file"),
    "only white space": (put("text", b" \n\n"), "/text: empty file"),
    "empty utt2spk": (put("utt2spk", b""), "/utt2spk: empty file"),
    "folder instead of text": (folder_instead, "/text: not a regular file"),
    "dangling link": (dangling, "/text: cannot be read: No such file or directory"),
    "UTF-16": (put("text", "s00-000 a\n".encode("utf-16")), "/text:1: UTF-16 text"),
    "Latin-1": (put("text", b"s00-000 na\xefve\n"), "/text:1: not UTF-8: byte 0xef at byte 10 of the file"),
    "overlong UTF-8": (replace("text", b"s00-001 ", b"s00-001 \xc0\xaf"), "/text:2: not UTF-8: byte 0xc0"),
    "byte order mark": (put("text", b"\xef\xbb\xbfs00-000 a\n"), "/text:1: byte order mark"),
    "CR LF": (replace("text", b"\n", b"\r\n", 9), "/text:1: Windows line end (CR LF), in 4 line(s)"),
    "tab": (replace("text", b"s01-000 ", b"s01-000\t"), "/text:3: tab instead of a space, in 1 line(s)"),
    "blank line": (replace("text", b"\n", b"\n\n"), "/text:2: blank line"),
    "leading space": (replace("text", b"s00-001", b" s00-001"), "/text:2: space before the id"),
    "cut off": (
        lambda p: os.truncate(p / "text", (p / "text").stat().st_size - 2),
        "/text:4: no line feed at the end",
    ),
    "NUL": (replace("text", b"s00-001 ", b"s00-001 a\x00"), "/text:2: control character"),
    "escape code": (replace("text", b"s00-001 ", b"s00-001 \x1b[2J"), "/text:2: control character (\\x1b[2J"),
    "no-break space": (
        replace("text", b"s00-001 ", b"s00-001 a\xc2\xa0b "),
        "/text:2: a space that is not U+0020",
    ),
    "unsorted": (
        put("text", b"s00-000 a\ns01-000 b\ns00-001 c\ns01-001 d\n"),
        "/text:3: not sorted by code point: speechkit fix sorts (s00-001 after s01-000)",
    ),
    "sorted by a locale": (
        put("utt2spk", b"a a\nB B\n"),
        "/utt2spk:2: not sorted by code point: speechkit fix sorts (B after a)",
    ),
    "duplicate line": (
        append("text", b"s01-001 again\n"),
        "/text:5: duplicate id, first on line 4 (s01-001)",
    ),
    "duplicate speaker": (append("spk2utt", b"s01 s01-000\n"), "/spk2utt:3: duplicate id, first on line 2"),
    "id with a slash": (replace("utt2spk", b"s00-001", b"s00/001"), "/utt2spk:2: an id must not contain '/'"),
    "id that climbs": (
        replace("wav.scp", b"s00-001", b"..-x"),
        "/wav.scp:2: an id must not begin with '-' or '.'",
    ),
    "id like an option": (
        replace("text", b"s00-000", b"-rf"),
        "/text:1: an id must not begin with '-' or '.'",
    ),
    "id of 201 bytes": (
        replace("text", b"s00-000", b"x" * 201),
        "/text:1: an id must have at most 200 bytes",
    ),
    "id with a bidi control": (
        replace("text", b"s00-000", "s00\u202e000".encode()),
        "/text:1: an id must not contain whitespace or control characters (s00\\u202e000)",
    ),
    "three columns": (
        replace("utt2spk", b" s00\n", b" s00 A\n"),
        "/utt2spk:1: expected one column after the id",
    ),
    "no speaker": (replace("utt2spk", b" s00\n", b"\n"), "/utt2spk:1: no value after the id (s00-000)"),
    "bad speaker id": (replace("utt2spk", b" s00\n", b" a/b\n"), "/utt2spk:1: an id must not contain '/'"),
    "missing in text": (
        drop_line("text", 2),
        "/text: utterance of utt2spk is missing: speechkit fix drops it (s00-001)",
    ),
    "missing in wav.scp": (drop_line("wav.scp", 1), "/wav.scp: recording of utt2spk is missing (s00-000)"),
    "missing in utt2spk": (drop_line("utt2spk", 4), "/text:4: utterance is not in utt2spk (s01-001)"),
    "extra in text": (append("text", b"t00-000 a\n"), "/text:5: utterance is not in utt2spk (t00-000)"),
    "extra in wav.scp": (append("wav.scp", b"t a.wav\n"), "/wav.scp:5: recording is not in utt2spk (t)"),
    "entry without a file": (append("wav.scp", b"t\n"), "/wav.scp:5: no value after the id (t)"),
    "spk2utt of another": (
        replace("spk2utt", b"s00 s00-000 ", b"s00 s01-000 "),
        "/spk2utt:1: utt2spk gives it the speaker s01 (s01-000)",
    ),
    "spk2utt with a stranger": (
        replace("spk2utt", b"s00 ", b"s00 zz "),
        "/spk2utt:1: utt2spk does not have it (zz)",
    ),
    "spk2utt lists twice": (
        replace("spk2utt", b"s00-000", b"s00-000 s00-000"),
        "/spk2utt:1: utterance listed twice (s00-000)",
    ),
    "spk2utt lacks one": (
        replace("spk2utt", b" s00-001", b""),
        "/spk2utt: utterance of utt2spk is missing (s00-001)",
    ),
    "partial utt2lang": (
        table("utt2lang", s00_000="en"),
        "/utt2lang: utterance of utt2spk is missing (s00-001)",
    ),
    "two languages": (
        table("utt2lang", **{**ALL, "s00_001": "en us"}),
        "/utt2lang:2: expected one column after the id",
    ),
    "negative samples": (
        table("utt2num_samples", **{**ALL, "s00_000": "-5"}),
        "/utt2num_samples:1: expected a positive whole",
    ),
    "fractional frames": (
        table("utt2num_frames", **{**ALL, "s00_000": "5.0"}),
        "/utt2num_frames:1: expected a positive whole",
    ),
    "zero duration": (
        table("utt2dur", **{**ALL, "s00_000": "0"}),
        "/utt2dur:1: expected a positive number of seconds",
    ),
    "gender": (table("spk2gender", s00="m", s01="male"), "/spk2gender:2: expected m or f (male)"),
    "labels": (table("km.txt", **{**ALL, "s00_000": "1 -2"}), "/km.txt:1: expected whole numbers"),
    "tags": (
        table("word_tags", **{**ALL, "s00_000": "- - - - - -"}),
        "/word_tags:1: 6 tags for the 3 words of text (s00-000)",
    ),
}
# the same with `segments`: two recordings s00 and s01 of two utterances each
SEGMENTED = {
    "reversed segment": (
        replace("segments", b"0.000 1.000", b"1.000 0.000"),
        "/segments:1: the segment's end is not after",
    ),
    "empty segment": (
        replace("segments", b"0.000 1.000", b"1.0 1.000"),
        "/segments:1: the segment's end is not after",
    ),
    "negative start": (replace("segments", b"0.000", b"-0.5"), "/segments:1: start and end must be times"),
    "open end": (replace("segments", b"0.000 1.000", b"0 -1"), "/segments:1: an end of -1"),
    "no number": (replace("segments", b"0.000", b"zero"), "/segments:1: start and end must be times"),
    "NaN": (replace("segments", b"0.000", b"nan"), "/segments:1: start and end must be times"),
    "two columns": (replace("segments", b" 0.000", b""), "/segments:1: expected recording, start and end"),
    "channel column": (
        replace("segments", b"1.000\n", b"1.000 A\n"),
        "/segments:1: expected recording, start and end",
    ),
    "unknown recording": (
        replace("segments", b"s01 0.000", b"s77 0.000"),
        "/wav.scp: recording of segments is missing (s77)",
    ),
    "unused recording": (append("wav.scp", b"s99 x.wav\n"), "/wav.scp:3: recording is not in segments (s99)"),
    "utterance without segment": (
        drop_line("segments", 1),
        "/segments: utterance of utt2spk is missing (s00-000)",
    ),
}


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def refused(path: Path, expected: str, capsys) -> None:
    """The reader and three commands refuse the directory at the expected place, and write nothing."""
    before = snapshot(path.parent)
    with pytest.raises(ProblemsError) as error:
        read_data_dir(path)
    assert any(str(problem).startswith(f"{path}{expected}") for problem in error.value.problems), str(
        error.value
    )
    assert main(["validate", str(path)]) == 1
    assert f"error: {path}{expected}" in capsys.readouterr().err
    out = path.parent / "out"
    for command in (["subset", path, out, "--count", "1"], ["combine", out, path], ["split", path, "2"]):
        assert main([str(argument) for argument in command]) == 1
        assert f"{path}{expected}" in capsys.readouterr().err
    assert snapshot(path.parent) == before


@pytest.mark.parametrize("case", READER)
def test_refused(tmp_path, capsys, case):
    path = make_data_dir(tmp_path / "train", 4, 2, texts=["a b c"] * 4, audio=False)
    read_data_dir(path)
    change, expected = READER[case]
    change(path)
    refused(path, expected, capsys)


@pytest.mark.parametrize("case", SEGMENTED)
def test_segments_refused(tmp_path, capsys, case):
    path = make_data_dir(tmp_path / "train", 4, 2, segments=True, audio=False)
    read_data_dir(path)
    change, expected = SEGMENTED[case]
    change(path)
    refused(path, expected, capsys)


def entry(value: str) -> Callable[[Path], None]:
    """Gives the first recording another entry; DIR is the data directory."""

    def change(path: Path) -> None:
        lines = (path / "wav.scp").read_text().splitlines()
        lines[0] = f"s00-000 {value.replace('DIR', str(path))}"
        (path / "wav.scp").write_text("\n".join(lines) + "\n")

    return change


def sound(content: bytes | None) -> Callable[[Path], None]:
    return lambda path: (path / "audio" / "s00-000.wav").write_bytes(content)


def half(path: Path) -> None:
    file = path / "audio" / "s00-000.wav"
    os.truncate(file, file.stat().st_size // 2)


# found by `validate` only; the last item: options
VALIDATOR = {
    "no text": (remove("text"), "/text: missing: --no-text true", []),
    "empty transcript": (replace("text", b"s00-000 a b c", b"s00-000"), "/text:1: empty transcript", []),
    "reserved word": (
        replace("text", b"a b c", b"a </s> c"),
        "/text:1: a reserved symbol as a word (</s>)",
        [],
    ),
    "no such file": (entry("/nowhere/a.wav"), "/wav.scp:1: no such file: /nowhere/a.wav", []),
    "no such relative file": (
        entry("a.wav"),
        "/wav.scp:1: no such file, seen from the current directory: a.wav",
        [],
    ),
    "no such archive": (entry("/nowhere/a.ark:12"), "/wav.scp:1: no such file: /nowhere/a.ark", []),
    "pipe": (entry("sox a.wav -t wav - |"), "/wav.scp:1: pipe refused", []),
    "output pipe": (
        entry("| touch owned"),
        "/wav.scp:1: standard input and output",
        ["--allow-pipes", "true"],
    ),
    "standard input": (entry("-"), "/wav.scp:1: standard input and output", []),
    "home directory": (entry("~/a.wav"), "/wav.scp:1: '~' is not expanded", []),
    "range": (entry("DIR/audio/s00-000.wav[0:9]"), "/wav.scp:1: ranges are not supported", []),
    "folder": (entry("DIR/audio"), "/wav.scp:1: a folder, not a file", []),
    "NUL in a path": (entry("a\x00b.wav"), "/wav.scp:1: control character", []),
    "empty audio file": (sound(b""), "/wav.scp:1: empty file", []),
    "no such features": (table("feats.scp", **ALL), "/feats.scp:1: no such file", []),
    "not audio": (sound(b"hello, world" * 99), "/wav.scp:1: unknown format", ["--read-audio", "true"]),
    "truncated audio": (half, "/wav.scp:1: truncated audio", ["--read-audio", "true"]),
    "wrong rate": (
        lambda p: make_wave(p / "audio" / "s00-000.wav", rate=8000),
        "/wav.scp:1: wrong sample rate: 8000 Hz, not 16000 Hz",
        ["--read-audio", "true", "--rate", "16000"],
    ),
    "forbidden pipe program": (
        entry("sh -c id |"),
        "/wav.scp:1: ",
        ["--read-audio", "true", "--allow-pipes", "true"],
    ),
}


@pytest.mark.parametrize("case", VALIDATOR)
def test_found_by_validation(tmp_path, capsys, case):
    path = make_data_dir(tmp_path / "train", 4, 2, seconds=0.3, texts=["a b c"] * 4)
    change, expected, options = VALIDATOR[case]
    assert main(["validate", str(path), "--read-audio", "true"]) == 0
    change(path)
    capsys.readouterr()
    before = snapshot(tmp_path)
    assert main(["validate", str(path), *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"error: {path}{expected}") for line in lines), lines
    assert lines[-1].startswith("speechkit validate:") or " problem(s)" in "".join(lines)
    assert snapshot(tmp_path) == before and not Path("owned").exists()


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: None, "no such directory"),
    (lambda path: path.write_text("x"), "not a directory"),
    (lambda path: path.mkdir(), "utt2spk: missing"),
])  # fmt: skip
def test_no_directory_at_all(tmp_path, capsys, make, message):
    make(tmp_path / "d")
    with pytest.raises(InputError, match=message):
        read_data_dir(tmp_path / "d")
    assert main(["validate", str(tmp_path / "d")]) == 1
    assert message in capsys.readouterr().err
    out = str(tmp_path / "out")
    assert main(["subset", str(tmp_path / "d"), out, "--count", "1"]) == 1
    assert main(["fix", str(tmp_path / "d"), "--output", out]) == 1
    assert not (tmp_path / "out").exists()


def test_every_problem_is_reported_at_once(tmp_path):
    path = make_data_dir(tmp_path / "train", 4, 2, texts=["a b c"] * 4, audio=False)
    for case in ("Latin-1", "three columns", "extra in wav.scp", "spk2utt lists twice", "gender"):
        READER[case][0](path)
    with pytest.raises(ProblemsError) as error:
        read_data_dir(path)
    text = str(error.value)
    for case in ("Latin-1", "three columns", "extra in wav.scp", "spk2utt lists twice", "gender"):
        assert f"{path}{READER[case][1]}" in text


@pytest.mark.parametrize("options", [["--read-audio", "yes"], ["--rate", "16k"], ["--colour", "true"], []])
def test_bad_command_line(tmp_path, options):
    with pytest.raises(SystemExit) as stop:
        main(["validate", *([str(tmp_path)] if options else []), *options])
    assert stop.value.code == 2
