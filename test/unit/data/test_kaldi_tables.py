"""Tables: ids, lines, values."""

import pytest

from speechkit.data.tables import id_problem, parse_table, render_table, shown, table_key, to_seconds


@pytest.mark.parametrize(
    "name", ["a", "s00-000", "A_b.c-d", "1", "ü", "日本-1", "x" * 200, "é" * 100, "a:b", "a#b"]
)
def test_good_ids(name):
    assert id_problem(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("a/b", "'/'"),
        ("..", "begin"),
        ("-a", "begin"),
        (".a", "begin"),
        ("a\u00a0b", "whitespace"),
        ("a\u2028b", "whitespace"),
        ("a\x00b", "control"),
        ("a\x7f", "control"),
        ("a\u202eb", "control"),
        ("x" * 201, "200 bytes"),
        ("é" * 101, "202"),
    ],
)
def test_bad_ids(name, why):
    assert why in id_problem(name)


def test_only_a_line_feed_ends_a_line():
    table = parse_table("a x\u2028y\nb z\n".encode(), "f", "spk2note")
    assert list(table.rows) == ["a", "b"] and table.lines == {"a": 1, "b": 2}
    assert "control" in table.problems[0].message and table.bad.keys() == {"a"}


def test_not_utf8_is_placed_by_its_byte_in_the_file():
    content = "a ü\nb ok\nc x".encode() + b"\xe4y\n"
    table = parse_table(content, "dir/text", "text")
    assert content[table_byte(table)] == 0xE4
    assert [(p.file, p.line) for p in table.problems] == [("dir/text", 3)]
    assert list(table.rows) == ["a", "b"]


def table_byte(table) -> int:
    return int(table.problems[0].message.split("at byte ")[1].split(" ")[0])


def test_problems_of_one_kind_on_all_lines_are_one_problem_with_a_count():
    content = "".join(f"u{i:03d}\tx\r\n" for i in range(100)).encode()
    table = parse_table(content, "f", "text")
    assert len(table.problems) == 2 and all("in 100 line(s)" in p.message for p in table.problems)
    assert len(table.rows) == 100


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("1.", 1.0), (".5", 0.5), ("-1", -1.0), ("1e-3", 0.001), ("+2.5E+1", 25.0)],
)
def test_seconds(text, value):
    assert to_seconds(text) == value


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1_0", "1e9999", "", ".", "0x1", "١", "1 2", "1" * 5000 + "x"]
)
def test_what_is_no_number_of_seconds(text):
    assert to_seconds(text) != to_seconds(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("segments", "r 1 1"),
        ("segments", "r 2 1"),
        ("segments", "r -1 1"),
        ("segments", "r 0 -1"),
        ("segments", "r 0 inf"),
        ("segments", "r 0"),
        ("segments", "r 0 1 A"),
        ("utt2num_samples", "0"),
        ("utt2num_samples", "1.5"),
        ("utt2num_samples", "9" * 5000),
        ("utt2num_frames", "-3"),
        ("utt2dur", "0"),
        ("utt2dur", "long"),
        ("spk2gender", "x"),
        ("km.txt", "1 2 b"),
        ("utt2spk", "a b"),
        ("utt2lang", "en us"),
        ("text", "a\u00a0b"),
        ("segments", "r\u00a00 1"),
        ("segments", "\u00a0"),
        ("segments", "r 0\x1c1"),
        ("km.txt", "1\u30002"),
        ("spk2utt", "a\u00a0b"),
        ("text", "a\x0bb"),
    ],
)
def test_values_that_are_refused(name, value):
    table = parse_table(f"u {value}\n".encode(), name, name)
    assert [(p.file, p.line) for p in table.problems] == [(name, 1)] and table.bad.keys() == {"u"}


def test_which_files_are_tables():
    known = [
        "wav.scp",
        "feats.scp",
        "text",
        "segments",
        "utt2lang",
        "spk2gender",
        "cmvn.scp",
        "km.txt",
        "km_l9.txt",
        "phones.txt",
    ]
    assert [table_key(name) for name in known] == (
        ["recording", "utterance", "utterance", "utterance", "utterance", "speaker", "speaker"]
        + ["utterance"] * 3
    )
    for other in ("audio", "ledger.jsonl", "cmvn.json", "text.bak", "split4", "README"):
        assert table_key(other) is None


def test_messages_cannot_carry_terminal_codes_or_whole_files():
    assert shown("\x1b[31mred\u202e") == r"\x1b[31mred\u202e"
    assert len(shown("x" * 10_000)) < 120


def test_render_and_parse():
    rows = {"b": "x  y", "a": "", "c": " padded "}
    assert render_table(rows) == b"a\nb x  y\nc padded\n"
    assert parse_table(render_table(rows), "f", "text").rows == {"a": "", "b": "x  y", "c": "padded"}
