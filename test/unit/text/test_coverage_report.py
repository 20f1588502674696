"""The report of characters outside the vocabulary, and the tokenizer command."""

import json

from speechkit.bin.__main__ import main
from speechkit.text.coverage import cover, lines, script
from speechkit.text.tokenizer import build_tokenizer, load_tokenizer


def test_counts_characters_pieces_and_first_utterances():
    tokenizer = build_tokenizer("char", ["abc de"])
    found = cover(tokenizer, {"u1": "abc", "u2": "axbx Ж", "u3": "xa"})
    assert found.utterances == 3 and found.pieces == 3 + 6 + 2
    assert found.characters == {"x": 3, "Ж": 1}
    assert found.first["x"] == "u2" and found.first["Ж"] == "u2"
    assert found.changed == ["u2", "u3"] and found.empty == []
    report = "\n".join(lines("dev", tokenizer, found))
    assert "U+0078 x  3  LATIN  LATIN SMALL LETTER X  u2" in report
    assert "U+0416 Ж  1  CYRILLIC  CYRILLIC CAPITAL LETTER ZHE  u2" in report


def test_subword_pieces_of_several_unknown_characters_are_taken_apart():
    tokenizer = build_tokenizer("bpe", ["abc cab abc"] * 3, size=8)
    found = cover(tokenizer, {"u": "ab ЖЖЯ"})
    assert found.characters == {"Ж": 2, "Я": 1}


def test_scripts():
    assert [script(c) for c in "aЖन\u0301😀5.漢"] == [
        "LATIN",
        "CYRILLIC",
        "DEVANAGARI",
        "INHERITED",
        "COMMON",
        "COMMON",
        "COMMON",
        "CJK",
    ]


def test_command_writes_the_folder_reports_and_skips_itself(tmp_path, capsys):
    train, dev, out = tmp_path / "train", tmp_path / "dev", tmp_path / "tokens"
    train.write_text("u1 Hello There\nu2 don't\n", encoding="utf-8")
    dev.write_text("d1 hé\n", encoding="utf-8")
    command = ["tokenizer", "--text", str(train), "--check", str(dev), "--out", str(out), "case=lower"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "U+00E9 é  1  LATIN" in said.out and "d1" in said.out
    tokenizer = load_tokenizer(out)
    assert tokenizer.vocab[2:-1] == ["▁", *sorted(set("hellotheredon't"))]
    assert json.loads((out / "tokenizer.json").read_text())["normaliser"]["case"] == "lower"
    before = (out / "tokens.txt").stat().st_mtime_ns
    assert main(command) == 0
    assert "up to date" in capsys.readouterr().err
    assert main([*command[:-1], "case=upper"]) == 0
    assert (out / "tokens.txt").stat().st_mtime_ns != before
    assert "H" in load_tokenizer(out)


def test_overrides_may_follow_an_option_with_many_files(tmp_path):
    text, out = tmp_path / "text", tmp_path / "t"
    text.write_text("u1 A-B\n")
    for position in (["--out", str(out), "--text", str(text)], ["--text", str(text), "--out", str(out)]):
        overrides = ["case=lower", "punctuation=remove"]
        assert main(["tokenizer", *position, "--check", str(text), *overrides, "--force", "true"]) == 0
        assert load_tokenizer(out).vocab[2:-1] == ["▁", "a", "b"]
        assert main(["tokenizer", *position, *overrides, "--force", "true"]) == 0
        assert load_tokenizer(out).vocab[2:-1] == ["▁", "a", "b"]


def test_command_reads_sentences_without_ids(tmp_path, capsys):
    text = tmp_path / "lm"
    text.write_text("first line\n\nsecond line\n")
    assert main(["tokenizer", "--text", str(text), "--out", str(tmp_path / "t"), "--no-ids", "true"]) == 0
    assert "f" in load_tokenizer(tmp_path / "t")
    assert "2 texts" in capsys.readouterr().out


def test_a_long_list_says_how_much_it_leaves_out():
    tokenizer = build_tokenizer("char", ["a"])
    report = lines("f", tokenizer, cover(tokenizer, {"u": "".join(chr(0x4E00 + n) for n in range(30))}))
    assert "  and 10 more characters" in report
