"""A WordPiece vocabulary learnt here: against hand-made counts, transformers' tokenizer, and itself."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from factories import write_table

from speechkit.bin.__main__ import main
from speechkit.errors import InputError
from speechkit.text.wordpiece_cut import Cutter, Rules, read_folder
from speechkit.text.wordpiece_train import SPECIALS, train_vocab

TEXTS = ["the baker weighs the flour", "the gardener waters the flower", "the flour the flower", "Über x-ray"]


def test_whole_words_are_the_most_frequent_ones():
    words = ["the", "flour", "flower", "-", "baker", "gardener", "ray", "waters", "weighs", "x", "Über"]
    assert train_vocab(TEXTS, Rules(), whole_words=True) == [*SPECIALS, *words]
    assert train_vocab(TEXTS, Rules(), size=7, whole_words=True) == [*SPECIALS, "the", "flour"]
    assert train_vocab(TEXTS, Rules(), min_count=2, whole_words=True) == [*SPECIALS, "the", "flour", "flower"]
    assert "über" in train_vocab(TEXTS, Rules(lower_case=True), whole_words=True)


def test_with_room_enough_every_word_is_one_piece():
    vocab = train_vocab(TEXTS, Rules())
    cutter = Cutter(vocab, Rules())
    assert all(len(cutter.pieces(word)) == 1 for text in TEXTS for word in cutter.words(text))
    assert vocab[: len(SPECIALS)] == list(SPECIALS) and len(set(vocab)) == len(vocab)
    assert cutter.split("flow") != ["[UNK]"]  # an unknown word of known characters is spelt


def test_the_first_merge_is_the_most_frequent_pair():
    """`a` and `b` stand together 3 times, `b` and `c` twice: brute force over the words."""
    texts = ["ab ab abc bc"]
    characters = [*"abc", "##b", "##c"]
    given = len(SPECIALS) + len(characters)
    assert train_vocab(texts, Rules(), size=given) == [*SPECIALS, *characters]
    assert train_vocab(texts, Rules(), size=given + 1)[-1] == "ab"
    assert "bc" not in train_vocab(texts, Rules(), min_count=2) and "abc" not in train_vocab(
        texts, Rules(), min_count=2
    )


def test_the_order_of_the_text_and_the_process_do_not_matter():
    letters, draw = "abcdefghij", random.Random(3)
    texts = ["".join(draw.choices(letters, k=draw.randint(1, 6))) for _ in range(300)]
    vocab = train_vocab(texts, Rules(), size=120)
    assert len(vocab) == 120
    for _ in range(3):
        draw.shuffle(texts)
        assert train_vocab(texts, Rules(), size=120) == vocab
    code = f"""
from speechkit.text.wordpiece_train import train_vocab
from speechkit.text.wordpiece_cut import Rules
print(*train_vocab({texts!r}, Rules(), size=120))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == vocab


@pytest.mark.parametrize("switch", ["true", "false"])
def test_the_folder_is_read_by_transformers_as_by_us(tmp_path, switch, capsys):
    from transformers import BertTokenizerFast

    write_table(tmp_path / "text", {f"s{i}": text for i, text in enumerate(TEXTS)})
    command = ["bert-vocab", "--text", tmp_path / "text", "--out", tmp_path / "v", "--whole-words", switch]
    assert main(list(map(str, command))) == 0
    assert "1.000 pieces a word, 0.00 % of the words are [UNK]" in capsys.readouterr().out
    vocab, rules = read_folder(tmp_path / "v")
    assert rules == Rules()
    theirs = BertTokenizerFast.from_pretrained(tmp_path / "v")
    assert theirs.convert_tokens_to_ids(vocab) == list(range(len(vocab)))
    for text in (*TEXTS, "the Über-baker xyz"):
        assert Cutter(vocab, rules).split(text) == theirs.tokenize(text)
    assert main(list(map(str, command))) == 0 and "up to date" in capsys.readouterr().err


def test_what_cannot_be_learnt_is_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="no word"):
        train_vocab(["  ", ""], Rules())
    with pytest.raises(InputError, match="no word is left with size=5"):
        train_vocab(TEXTS, Rules(), size=5, whole_words=True)
    with pytest.raises(InputError, match="size=9: .* need at least"):
        train_vocab(TEXTS, Rules(), size=9)
    assert main(["bert-vocab", "--text", str(tmp_path / "none"), "--out", str(tmp_path / "v")]) == 1
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "v").exists()
