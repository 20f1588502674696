"""Broken language models, lexicons and texts: one line that says where, exit 1, nothing half-written."""

import gzip

import pytest

from speechkit.bin.__main__ import main
from speechkit.errors import InputError, ProblemsError
from speechkit.lm import read_arpa
from speechkit.search.lexicon import Lexicon, read_lexicon

GOOD = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1\t<unk>
0\t<s>\t-0.5
-0.9\t</s>
-0.6\ta\t-0.3

\\2-grams:
-0.2\t<s> a
-0.4\ta a

\\end\\
"""
BROKEN = {
    "no header": (GOOD.replace("\\data\\", "data"), "not an ARPA file"),
    "not counts": (GOOD.replace("ngram 2=2", "ngram 2=two"), ":3: expected `ngram 2=count`"),
    "orders out of order": (GOOD.replace("ngram 2=2", "ngram 3=2"), ":3: expected `ngram 2=count`"),
    "no counts": (GOOD.replace("ngram 1=4\nngram 2=2\n", ""), "no `ngram 1=count` line"),
    "count too low": (GOOD.replace("2=2", "2=1"), ":13: expected .end. after 1 2-grams, got '-0.4"),
    "count too high": (GOOD.replace("2=2", "2=3"), ":14: expected 3 lines"),
    "cut off in the header": ("\\data\\\nngram 1=4\n", ":2: the file ends early"),
    "cut off in a section": (GOOD[: GOOD.index("-0.4")], ":13: expected 2 lines"),
    "cut off before the end": (GOOD.replace("\\end\\\n", ""), "the file ends early"),
    "section missing": (GOOD.replace("\\2-grams:", "\\3-grams:"), ":11: expected .2-grams:"),
    "too many fields": (GOOD.replace("-0.4\ta a", "-0.4\ta a a a"), ":13: expected 2 lines"),
    "not a number": (GOOD.replace("-0.4", "-o.4"), ":13: '-o.4' is not a number"),
    "back-off not a number": (GOOD.replace("-0.3", "x"), ":9: 'x' is not a number"),
    "positive log probability": (GOOD.replace("-0.4", "0.4"), ":13: '0.4' is no log10 probability"),
    "nan": (GOOD.replace("-0.4", "nan"), ":13: 'nan' is no log10 probability"),
    "infinite back-off": (GOOD.replace("-0.3", "-inf"), ":9: .*back-off is not finite"),
    "word not in unigrams": (GOOD.replace("-0.4\ta a", "-0.4\ta b"), ":13: 'b' is not among the unigrams"),
    "unigram twice": (GOOD.replace("</s>", "a"), ":9: 'a' is listed twice"),
    "bigram twice": (GOOD.replace("a a", "<s> a"), ":13: this n-gram is listed twice"),
    "no end of sentence": (GOOD.replace("</s>", "b"), "no unigram </s>"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_arpa(tmp_path, case):
    text, message = BROKEN[case]
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_arpa(tmp_path / "lm.arpa")
    assert "lm.arpa" in str(error.value) and "\n" not in str(error.value)


def test_good_arpa_is_good(tmp_path):
    (tmp_path / "lm.arpa").write_text(GOOD)
    assert read_arpa(tmp_path / "lm.arpa").order == 2


def test_trigram_without_its_beginning(tmp_path):
    text = GOOD.replace("2=2", "2=2\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.1\t</s> a a\n\n\\end\\")
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(InputError, match=r"lm.arpa:17: no 2-gram of its first 2 words"):
        read_arpa(tmp_path / "lm.arpa")


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="no such language model"):
        read_arpa(tmp_path / "none.arpa")
    (tmp_path / "latin.arpa").write_bytes(GOOD.replace("a", "\u00e4").encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.arpa:\d+: not UTF-8"):
        read_arpa(tmp_path / "latin.arpa")
    (tmp_path / "text.gz").write_text(GOOD)
    with pytest.raises(InputError, match="broken gzip"):
        read_arpa(tmp_path / "text.gz")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(GOOD.encode())[:-20])
    with pytest.raises(InputError, match="broken gzip"):
        read_arpa(tmp_path / "cut.gz")


VOCAB = ["<blank>", "<unk>", "a", "b", "▁"]


def test_broken_lexicons(tmp_path):
    file = tmp_path / "lexicon.txt"
    with pytest.raises(InputError, match="no such lexicon"):
        read_lexicon(file, VOCAB)
    file.write_text("ab a b\nba\nab a b\n")
    with pytest.raises(ProblemsError) as error:
        read_lexicon(file, VOCAB)
    assert str(error.value).split("\n") == [
        f"{file}:2: a word without a spelling (ba)",
        f"{file}:3: this spelling is listed twice (ab a b)",
    ]
    file.write_bytes(b"ab a b\n\xff a\n")
    with pytest.raises(InputError, match=r"lexicon.txt:2: not UTF-8"):
        read_lexicon(file, VOCAB)
    file.write_text("cd c d\nx y\n")
    with pytest.raises(InputError, match="lexicon.txt: .*all 2 words need tokens outside the vocabulary"):
        read_lexicon(file, VOCAB)
    file.write_text("\n\n")
    with pytest.raises(InputError, match="lexicon.txt: the lexicon is empty: no words"):
        read_lexicon(file, VOCAB)


class Joining:
    """A tokenizer that spells two words together differently than apart."""

    vocab, unk = VOCAB, 1

    def encode(self, text):
        return [2, 4, 3] if " " in text else [2, 2]


def test_a_tokenizer_that_mixes_words_cannot_spell_a_lexicon():
    with pytest.raises(InputError, match="'word' twice is not spelt as its spelling twice"):
        Lexicon.from_words(["word"], Joining())


COMMANDS = {
    "missing text": ("train", None, [], "text: no such file"),
    "empty text": ("train", b"", [], "text: the file is empty"),
    "not UTF-8": ("train", b"a b\n\xff\n", [], "text:2: not UTF-8"),
    "too small": ("train", b"a b\na b\n", [], "--discount-fallback true"),
    "reserved symbol": ("train", b"a b\n\na </s> b\n", [], "text:3: the text holds the reserved symbol </s>"),
    "bad order": ("train", b"a b\n", ["--order", "9"], "order 9"),
    "ids twice": ("train", b"u1 a\nu1 b\n", ["--ids", "true"], "text:2: utterance id is there twice (u1)"),
    "no word of the list": ("train", b"a b\n", ["--words", "{words}"], "no words of the word list"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_commands_fail_with_one_line_and_write_nothing(tmp_path, capsys, case):
    action, content, options, message = COMMANDS[case]
    text, out = tmp_path / "text", tmp_path / "out" / "lm.arpa"
    (tmp_path / "words").write_text("zebra\n")
    if content is not None:
        text.write_bytes(content)
    options = [option.replace("{words}", str(tmp_path / "words")) for option in options]
    assert main(["ngram", action, "--text", str(text), "--out", str(out), *options]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.strip().split("\n")) == 1
    assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize(
    "wrong", [["estimate"], ["train", "--txt", "x"], ["train", "--text", "x"], ["score", "--lm", "x"], []]
)
def test_a_command_line_that_is_not_understood_exits_with_2(wrong):
    with pytest.raises(SystemExit) as left:
        main(["ngram", *wrong])
    assert left.value.code == 2
