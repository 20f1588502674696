"""Foreign vocabularies and the rows of their CTC heads."""

import json

import pytest
import torch

from speechkit.errors import InputError
from speechkit.integrations.vocabulary import (
    Vocabulary,
    convert_head,
    read_fairseq,
    read_huggingface,
    read_labels,
)


def convert(words):
    rows = len(words.tokens)
    weight, bias = torch.arange(rows * 2.0).reshape(rows, 2), -torch.arange(float(rows))
    return weight, bias, *convert_head(weight, bias, words)


def test_rows_follow_their_tokens():
    words = Vocabulary(
        "v", ["|", "</s>", "b", "<pad>", "a", "<unk>", "<s>"], "<pad>", "<unk>", "</s>", "|", {"<s>"}
    )
    weight, bias, new_weight, new_bias, tokenizer, lines = convert(words)
    assert tokenizer.vocab == ["<blank>", "<unk>", "▁", "b", "a", "<sos/eos>"]
    order = [3, 5, 0, 2, 4, 1]
    assert torch.equal(new_weight, weight[order]) and torch.equal(new_bias, bias[order])
    assert tokenizer.normaliser.config.case == "lower" and tokenizer.decode([4, 3, 2, 4]) == "ab a"
    assert lines == [
        "head: 7 rows into 6, the blank '<pad>' first",
        "head: rows left out, which CTC never emits: <s>",
    ]


def test_tokens_that_are_not_there_get_rows_of_probability_zero():
    *_, weight, bias, tokenizer, lines = convert(Vocabulary("v", ["-", "|", "x"], "-", space="|"))
    assert tokenizer.vocab == ["<blank>", "<unk>", "▁", "x", "<sos/eos>"]
    assert (weight[[1, 4]] == 0).all() and bias.softmax(0)[[1, 4]].tolist() == [0, 0]
    assert lines[-1] == "head: rows added, of probability 0: <unk>, <sos/eos>"


@pytest.mark.parametrize(
    ("pieces", "kind", "case", "form"),
    [
        (["|", "A", "'"], "char", "upper", "NFC"),
        (["|", "a", "ß"], "char", "lower", "NFC"),
        (["|", "a", "B"], "char", "keep", "NFC"),
        (["|", "你", "好"], "char", "keep", "NFC"),
        (["|", "e", "\u0301"], "char", "lower", "NFC"),
        (["iː", "ə", "dʒ"], "word", "keep", "NFC"),
        (["a\u0301", "b"], "word", "keep", "NFD"),
        (["a\u0301", "\u00e9"], "word", "keep", "none"),
    ],
)
def test_kind_case_and_unicode_form_follow_the_tokens(pieces, kind, case, form):
    *_, tokenizer, _ = convert(Vocabulary("v", ["_", *pieces], "_", space="|"))
    config = tokenizer.normaliser.config
    assert (tokenizer.kind, config.case, config.form) == (kind, case, form)


def test_fairseq_dictionaries(tmp_path):
    path = tmp_path / "dict.ltr.txt"
    path.write_text("| 94802\nE 51860\nmadeupword0000 0\n' 3 #fairseq:overwrite\n")
    words = read_fairseq(path)
    assert words.tokens == ["<s>", "<pad>", "</s>", "<unk>", "|", "E", "madeupword0000", "'"]
    *_, tokenizer, _ = convert(words)
    assert tokenizer.vocab == ["<blank>", "<unk>", "▁", "E", "'", "<sos/eos>"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("| 5\nE\n", "dict.ltr.txt:2: expected `token count`, got 'E'"),
        ("| five\n", "dict.ltr.txt:1: expected `token count`"),
        ("| 5\n\n", "dict.ltr.txt:2: expected `token count`"),
        ("| 5\nE 1\nE 2\n", "token 'E' is listed twice"),
        ("", "the file is empty"),
    ],
)
def test_broken_dictionaries(tmp_path, content, message):
    (tmp_path / "dict.ltr.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        read_fairseq(tmp_path / "dict.ltr.txt")


def test_labels(tmp_path):
    (tmp_path / "labels.txt").write_text("-\n|\nE\n")
    words = read_labels(tmp_path / "labels.txt")
    assert (words.blank, words.tokens, words.unk) == ("-", ["-", "|", "E"], None)


def write(folder, vocab, added=None, **special):
    (folder / "vocab.json").write_text(json.dumps(vocab))
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    if special:
        (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


def test_huggingface_names_of_special_tokens(tmp_path):
    folder = write(
        tmp_path,
        {"a": 0, "|": 1, "[UNK]": 2, "[PAD]": 3},
        {"<s>": 4, "</s>": 5},
        unk_token="[UNK]",
        pad_token={"content": "[PAD]", "lstrip": False},
    )
    words = read_huggingface(folder, 3, 6)
    assert (words.blank, words.unk, words.eos, words.space, words.unused) == (
        "[PAD]",
        "[UNK]",
        "</s>",
        "|",
        {"<s>"},
    )
    *_, tokenizer, _ = convert(words)
    assert tokenizer.vocab == ["<blank>", "<unk>", "a", "▁", "<sos/eos>"]


def test_added_tokens_beyond_the_head_do_not_count(tmp_path):
    folder = write(tmp_path, {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}, {"<s>": 4, "</s>": 5})
    assert read_huggingface(folder, 0, 4).tokens == ["<pad>", "<unk>", "|", "a"]
    assert read_huggingface(folder, 0, 6).eos == "</s>"


@pytest.mark.parametrize(
    ("vocab", "blank", "message"),
    [
        ({"<pad>": 0, "a": 2}, 0, "ids must be 0 to 1, each once"),
        ({"<pad>": 0, "a": 0}, 0, "ids must be 0 to 1"),
        ({"<pad>": "0", "a": 1}, 0, "ids must be 0 to 1"),
        ({"<pad>": 1, "a": 0}, 0, r"'<pad>' has the id 1, but pad_token_id in config.json, the blank, is 0"),
        ({"a": 0, "b": 1}, 0, r"'<pad>' has the id None"),
        ({"eng": {"a": 0}, "fra": {"b": 0}}, 0, "vocabularies of several languages"),
        ({"<pad>": 0, "a b": 1}, 0, "has white space in it"),
        ({"<pad>": 0}, 0, "the vocabulary is empty"),
    ],
)
def test_broken_huggingface_vocabularies(tmp_path, vocab, blank, message):
    with pytest.raises(InputError, match=message):
        convert(read_huggingface(write(tmp_path, vocab), blank, len(vocab)))


def test_a_vocabulary_of_another_head():
    with pytest.raises(InputError, match="v: 3 tokens, but the CTC head has 4 rows"):
        convert_head(torch.ones(4, 2), torch.ones(4), Vocabulary("v", ["-", "|", "a"], "-"))
