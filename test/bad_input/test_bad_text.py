"""Bad text files, tokenizer options and tokenizer folders: one clear line, nothing half-written."""

import json
import re

import pytest

from speechkit.bin.__main__ import main
from speechkit.errors import InputError, ProblemsError
from speechkit.text.reading import read_text
from speechkit.text.tokenizer import build_tokenizer, load_tokenizer

GOOD = "u1 hello there\nu2 world\n"


@pytest.fixture
def run(tmp_path, capsys):
    """Runs `speechkit tokenizer` on some bytes; returns status and message, checks nothing is left."""

    def tokenizer(content: bytes | str | None, *options: str, status: int = 1) -> str:
        text, out = tmp_path / "text", tmp_path / "out" / "tokens"
        if content is not None:
            text.write_bytes(content if isinstance(content, bytes) else content.encode())
        arguments = ["tokenizer", "--text", str(text), "--out", str(out), *map(str, options)]
        assert _status(arguments) == status
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert not out.parent.exists() or list(out.parent.iterdir()) == []
        return message

    return tokenizer


def _status(arguments):
    try:
        return main(arguments)
    except SystemExit as exit_:  # argparse
        return exit_.code


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"text: no such file"),
        (b"", r"text: the file is empty"),
        (b"\n \n", r"text: the file is empty"),
        (b"u1 hello\nu2 caf\xe9 au lait\n", r"text:2: not UTF-8: byte 15 of the file is 0xe9"),
        (b"\xff\xfeu\x001\x00", r"text:1: not UTF-8: byte 0 of the file is 0xff"),
        ("u1 a\nu2 b\nu1 c\n", r"text:3: utterance id is there twice \(u1\)"),
        ("u1 a\n\nu2 b\n", r"text:2: blank line"),
        ("u1 a\nu2\n", r"text: utterance u2 has no token in the vocabulary"),
        ("u1\nu2\n", r"the vocabulary is empty: the text has no token"),
    ],
)
def test_training_text(run, content, expected):
    assert re.search(expected, run(content))


def test_every_problem_is_listed(tmp_path):
    (tmp_path / "text").write_text("a x\n\na y\nb\nb z\n")
    with pytest.raises(ProblemsError) as caught:
        read_text(tmp_path / "text", empty=False)
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4]


def test_a_flood_of_problems_is_cut_and_counted(tmp_path):
    (tmp_path / "text").write_text("a x\n" * 100)
    with pytest.raises(ProblemsError, match="and 79 more problems"):
        read_text(tmp_path / "text")


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (["--kind", "chars"], 2, "invalid choice: 'chars'"),
        (["--kind", "bpe"], 1, "--kind bpe needs --size"),
        (["--kind", "bpe", "--size", "5"], 1, r"--size 5: too small, the text's characters alone need 12"),
        (
            ["--kind", "bpe", "--size", "9999"],
            1,
            r"--size 9999: more pieces than the text supports \(at most \d+",
        ),
        (["--kind", "unigram", "--size", "9999"], 1, r"--size 9999: more pieces than the text supports"),
        (["--kind", "bpe", "--size", "many"], 2, "invalid int value: 'many'"),
        (["--kind", "word", "--min-count", "3"], 1, "--min-count 3: no word is that frequent"),
        (["--kind", "word", "--words", "nowhere"], 1, "nowhere: no such file"),
        (["--kind", "phone", "--lexicon", "nowhere"], 1, "nowhere: no such file"),
        (["--kind", "wordpiece"], 1, "--kind wordpiece needs --vocab"),
        (["--kind", "wordpiece", "--vocab", "nowhere.txt"], 1, "nowhere.txt: no such file"),
        (["--kind", "bpe", "--model", "nowhere"], 1, "nowhere: no such sentencepiece model"),
        (["--check", "nowhere"], 1, "nowhere: no such file"),
        (["--force", "yes"], 2, "'yes' is neither true nor false"),
        (["case=small"], 1, "case: 'small' is not one of keep, lower, upper"),
        (["cases=lower"], 1, "unknown key; did you mean 'case'"),
        (["form"], 1, "override 'form': expected key=value"),
    ],
)
def test_options(run, options, status, expected):
    assert re.search(expected, run(GOOD, *options, status=status))


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("vocab.txt", "[PAD]\n[SEP]\nthe\n", ["--kind", "wordpiece", "--vocab"], r"vocab.txt: no \[UNK\]"),
        (
            "vocab.txt",
            "[PAD]\n[UNK]\n[SEP]\nthe\nthe\n",
            ["--kind", "wordpiece", "--vocab"],
            "vocab.txt:5: token 'the' is empty or listed before",
        ),
        ("vocab.txt", "", ["--kind", "wordpiece", "--vocab"], "vocab.txt: the file is empty"),
        ("lexicon", "cat k æ t\ndog\n", ["--kind", "phone", "--lexicon"], "lexicon:2: expected `word phone"),
        ("m.model", "not a model", ["--kind", "bpe", "--model"], "m.model: not a sentencepiece model"),
    ],
)
def test_files_beside_the_text(run, tmp_path, name, content, options, expected):
    (tmp_path / name).write_text(content)
    assert re.search(expected, run(GOOD, *options, tmp_path / name))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: no such file"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json:1: not JSON"),
        (lambda f: (f / "tokenizer.json").write_text('{"kind": "runes"}'), "tokenizer.json: not a tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), "tokenizer.json: not a tokenizer"),
        (lambda f: (f / "tokens.txt").unlink(), "tokens.txt: no such file"),
        (
            lambda f: (f / "tokens.txt").write_text("<blank> 0\n<unk> 1\na 3\n"),
            "tokens.txt:3: expected `token 2`",
        ),
        (lambda f: (f / "tokens.txt").write_text("a 0\nb 1\n"), "tokens.txt: must start with <blank>"),
        (
            lambda f: (f / "tokens.txt").write_text("<blank> 0\n<unk> 1\na 2\na 3\n<sos/eos> 4\n"),
            "token 'a' is listed twice",
        ),
        (lambda f: (f / "tokens.txt").write_bytes(b"<blank> 0\n\xff 1\n"), "tokens.txt:2: not UTF-8"),
        (lambda f: (f / "spm.model").unlink(), "spm.model: no such file"),
        (lambda f: (f / "spm.model").write_bytes(b"x"), "spm.model: not a sentencepiece model"),
    ],
)
def test_damaged_tokenizer_folders(tmp_path, damage, expected):
    folder = tmp_path / "t"
    build_tokenizer("bpe", ["hello there world"], size=16).save(folder)
    damage(folder)
    with pytest.raises(InputError, match=re.escape(expected)):
        load_tokenizer(folder)


def test_a_changed_normaliser_is_noticed(tmp_path):
    build_tokenizer("char", ["abc"]).save(tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    record = json.loads(path.read_text())
    record["normaliser"]["case"] = "lower"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="tokenizer.json: its normaliser does not have the hash"):
        load_tokenizer(tmp_path / "t")


def test_another_bert_vocabulary_is_noticed(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\nthe\ncat\n")
    build_tokenizer("wordpiece", ["the cat"], vocab=tmp_path / "vocab.txt").save(tmp_path / "t")
    (tmp_path / "t" / "vocab.txt").write_text("[UNK]\n[PAD]\n[SEP]\nthe\ncat\n")
    with pytest.raises(InputError, match="vocab.txt: not the vocabulary that tokenizer.json maps"):
        load_tokenizer(tmp_path / "t")


def test_a_full_disk_leaves_the_old_tokenizer(tmp_path, monkeypatch):
    import errno

    from speechkit import files

    build_tokenizer("char", ["abc"]).save(tmp_path / "t")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match="no space left on the disk"):
        build_tokenizer("char", ["xyz"]).save(tmp_path / "t")
    monkeypatch.undo()
    assert load_tokenizer(tmp_path / "t").vocab[3:-1] == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
