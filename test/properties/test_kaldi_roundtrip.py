"""Data directories: what is written is read back; hostile bytes are refused and never crash."""

import tempfile
import unicodedata
from pathlib import Path

from factories import make_data_dir
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from speechkit.bin.__main__ import main
from speechkit.data.consistency import is_text_set
from speechkit.data.fix import fix_data_dir, repair
from speechkit.data.kaldi_dir import DataDir, Segment, read_data_dir, scan_contents, write_data_dir
from speechkit.data.tables import KEYED_BY, id_problem, parse_table, table_key
from speechkit.errors import InputError

usual = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = [
    "text",
    "wav.scp",
    "utt2spk",
    "spk2utt",
    "segments",
    "utt2dur",
    "utt2num_samples",
    "spk2gender",
    "km.txt",
]

ids = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zs", "Zl", "Zp")), min_size=1, max_size=20
).filter(lambda name: id_problem(name) is None)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")) | st.just(" "), max_size=40)


@st.composite
def data_dirs(draw) -> DataDir:
    utterances = draw(st.lists(ids, min_size=1, max_size=12, unique=True))
    speakers = draw(st.lists(ids, min_size=1, max_size=4))
    utt2spk = {utterance: draw(st.sampled_from(speakers)) for utterance in utterances}
    text = {utterance: draw(texts).strip(" ") for utterance in utterances}
    segments, wav = {}, dict.fromkeys(utterances, "a.wav")
    if draw(st.booleans()):
        for utterance in utterances:
            start = draw(st.floats(0, 1e6))
            length = draw(st.floats(0.001, 1e3))
            segments[utterance] = Segment(draw(st.sampled_from(speakers)), start, start + length)
        wav = {segment.recording: "some path/with  spaces #é.wav" for segment in segments.values()}
    tables = {"spk2gender": {speaker: draw(st.sampled_from("mf")) for speaker in set(utt2spk.values())}}
    return DataDir(wav=wav, text=text, utt2spk=utt2spk, segments=segments, tables=tables)


@given(data_dirs())
@usual
def test_what_is_written_is_read_back(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "d")
        write_data_dir(data, path)
        again = read_data_dir(path)
        assert again.rows() == data.rows() and again.segments == data.segments
        contents = {file.name: file.read_bytes() for file in path.iterdir()}
        for content in contents.values():
            lines = content.split(b"\n")[:-1]
            assert lines == sorted(lines, key=lambda line: line.split(b" ")[0])
        write_data_dir(again, path)
        assert {file.name: file.read_bytes() for file in path.iterdir()} == contents
        fixed = fix_data_dir(path, Path(folder, "train"), checks=no_audio())
        assert not fixed.ledger.dropped and fixed.data.rows() == data.rows()


def no_audio():
    from speechkit.data.validate import Checks

    return Checks(need_text=False, need_audio=False)


separators = st.sampled_from(
    [b" ", b"\t", b"\r\n", b"\n", b"\xef\xbb\xbf", b"\xc2\xa0", b"\xe2\x80\xa8", b"\x00", b"u1 "]
)
words = st.sampled_from(
    ["u1 w w\n", "u2", "s1 u1 u2\n", "ü\u0301 -1\n", "r 0 1e9\n", "../x 9\n", "u1 s1 A\n"]
).map(str.encode)
hostile = st.lists(separators | words | st.binary(max_size=12), max_size=12).map(b"".join)


@given(st.dictionaries(st.sampled_from(NAMES), hostile))
@settings(max_examples=120, deadline=None)
@example({"segments": b"! \xc2\xa0", "text": b"", "wav.scp": b"", "utt2spk": b""})
def test_any_bytes_give_problems_and_no_crash(contents):
    scan = scan_contents(contents, Path("d"))
    assert scan.problems or is_text_set(contents)  # random bytes make no data set, but may be text
    for problem in scan.problems:
        assert all(c.isprintable() for c in str(problem)), repr(str(problem))


@given(st.sampled_from(NAMES), hostile)
@example("text", b"\x00")
@example("text", b" \xef\xbb\xbf")
@example("text", b"a b\n\x00\xef\xbb\xbf\xef\xbb\xbfc d")
@settings(max_examples=120, deadline=None)
def test_repairing_any_bytes_is_idempotent_and_never_loses_a_line_with_an_id(name, content):
    once, _ = repair(content, name)
    assert repair(once, name)[0] == once
    before, after = parse_table(content, "f", name), parse_table(once, "f", name)
    assert before.rows.keys() <= after.rows.keys() | after.bad.keys()
    left = "\n".join(p.message for p in after.problems)
    assert not any(word in left for word in ("sorted", "tab", "Windows", "line feed", "byte order mark"))


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_edits_of_a_good_directory_are_accepted_or_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        path = make_data_dir(Path(folder, "train"), 3, 2, segments=data.draw(st.booleans()), seconds=0.01)
        for _ in range(data.draw(st.integers(1, 3))):
            names = sorted(file.name for file in path.iterdir() if file.is_file())
            file = path / data.draw(st.sampled_from(names))
            content = file.read_bytes()
            start = data.draw(st.integers(0, len(content)))
            end = data.draw(st.integers(start, min(len(content), start + 5)))
            file.write_bytes(content[:start] + data.draw(st.binary(max_size=5) | separators) + content[end:])
        status = main(["validate", str(path), "--read-audio", "true"])
        try:
            read_data_dir(path)
        except InputError:
            assert status == 1
        out = Path(folder, "out")
        try:
            fix_data_dir(path, out, max_reject=1.0)
        except InputError:
            assert not out.exists()
        else:
            read_data_dir(out)


@given(st.text(max_size=30))
@settings(max_examples=120)
def test_an_accepted_id_is_a_safe_file_name(name):
    if id_problem(name) is None:
        assert "/" not in name and name not in (".", "..") and not name.startswith(("-", "."))
        assert len(name.encode()) <= 200 and len(name.split()) == 1
        assert not any(unicodedata.category(c) == "Cc" for c in name)
    else:
        data = DataDir(wav={name: "x"}, utt2spk={name: "s"})
        try:
            write_data_dir(data, Path(tempfile.gettempdir(), "never-written"))
        except InputError:
            pass
        else:
            raise AssertionError(f"{name!r} was written")


def test_every_pattern_of_tables_matches_itself():
    for pattern in KEYED_BY:
        assert table_key(pattern.replace("*", "x")) == KEYED_BY[pattern]
