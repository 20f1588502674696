"""The linguistic vocabulary: ids one to one with BERT's and with those of a shared tokenizer."""

import json
import pickle

import pytest
import torch
from bert_folders import SPECIAL, VOCAB, write_bert

from speechkit.errors import BadSample, InputError
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.normalise import Config, Normaliser
from speechkit.text.tokenizer import build_tokenizer
from speechkit.text.wordpiece_cut import Rules

TEXTS = ["the dogs don't", "the boys' cat"]


@pytest.fixture
def folder(tmp_path):
    return write_bert(tmp_path / "bert")


def test_ids_by_hand(folder):
    vocab = BertVocab.build(folder, TEXTS)
    assert vocab.tokens == ["[UNK]", "'", "the", "don", "t", "cat", "##s", "dog", "boys"]
    assert vocab.bert_ids == [2, 6, 8, 9, 10, 11, 12, 13, 14] and len(vocab) == 9
    assert (vocab.pad_id, vocab.cls_id, vocab.sep_id, vocab.mask_id, vocab.unk) == (0, 3, 4, 5, 0)
    assert vocab.encode("The dogs zzz") == [2, 7, 6, 0]
    assert vocab.encode("clock") == [0]  # BERT has it, the training text does not
    assert vocab.pieces([7, 6, 0]) == ["dog", "##s", "[UNK]"]
    assert vocab.decode([2, 7, 6, 0]) == "the dogs <unk>"
    assert vocab.decode([]) == ""


def test_full_vocabulary(folder):
    vocab = BertVocab.build(folder, TEXTS, "full")
    assert vocab.tokens == ["[UNK]", *VOCAB[len(SPECIAL) :]]
    assert vocab.decode(vocab.encode("o'clock")) == "o'clock"


def test_tables_are_each_others_inverse(folder):
    vocab = BertVocab.build(folder, TEXTS)
    lookup, inverse = vocab.lookup(), vocab.inverse()
    assert lookup.tolist() == vocab.bert_ids and inverse.shape == (len(VOCAB),)
    assert torch.equal(inverse[lookup], torch.arange(len(vocab)))
    assert [i for i, id_ in enumerate(inverse.tolist()) if id_] == vocab.bert_ids[1:]


def test_transcripts_come_back_under_the_normaliser(folder):
    normaliser = Normaliser(Config(case="lower", punctuation="remove"))
    vocab = BertVocab.build(folder, ["The DOGS, don't!"], normaliser=normaliser)
    for text in ("The dogs, don't!", "Don't  the dogs?"):
        assert vocab.decode(vocab.encode(text)) == normaliser(text)


def test_shared_units_map_one_to_one(folder):
    tokenizer = build_tokenizer("wordpiece", TEXTS, vocab=folder)
    vocab = BertVocab.from_tokenizer(tokenizer)
    assert vocab.tokens == BertVocab.build(folder, TEXTS).tokens
    shared = vocab.shared_ids(tokenizer)
    assert shared == [-1, *range(len(vocab)), -1]
    text = "boys' cats"
    assert [shared[id_] for id_ in tokenizer.encode(text)] == vocab.encode(text)
    assert vocab.decode(vocab.encode(text)) == tokenizer.decode(tokenizer.encode(text)) == text
    for id_, linguistic in list(enumerate(shared))[1:-1]:
        assert tokenizer.units.bert_ids[id_] == vocab.bert_ids[linguistic]


def test_units_of_another_kind_or_choice_are_not_shared(folder):
    vocab = BertVocab.build(folder, TEXTS)
    with pytest.raises(InputError, match="need a wordpiece tokenizer, not char"):
        BertVocab.from_tokenizer(build_tokenizer("char", TEXTS))
    for tokenizer in (
        build_tokenizer("char", TEXTS),
        build_tokenizer("wordpiece", TEXTS[:1], vocab=folder),
        build_tokenizer("wordpiece", TEXTS, vocab=folder, pieces="full"),
    ):
        with pytest.raises(InputError, match="are not the 9 pieces of the linguistic vocabulary"):
            vocab.shared_ids(tokenizer)


def test_saved_and_sent_to_a_worker_it_is_the_same(folder, tmp_path):
    vocab = BertVocab.build(folder, TEXTS, normaliser=Normaliser(Config(case="lower")), strip_accents=True)
    (tmp_path / "saved").mkdir()
    vocab.save(tmp_path / "saved")
    for again in (BertVocab.load(tmp_path / "saved"), pickle.loads(pickle.dumps(vocab))):
        assert (again.hash, again.bert_ids, again.rules) == (vocab.hash, vocab.bert_ids, Rules(True, True))
        assert again.encode("CÁT boys'") == vocab.encode("CÁT boys'") == [5, 8, 1]
        assert again.decode([8, 1, 5]) == "boys' cat"
    assert BertVocab.build(folder, TEXTS).hash != vocab.hash


def test_utterances_that_bert_cannot_read(folder):
    vocab = BertVocab.build(folder, TEXTS)
    assert vocab.encode_utterance("u1", "the cat " * 5, positions=12) == [2, 5] * 5
    with pytest.raises(BadSample, match="utterance u2: longer than BERT: 11 pieces, and BERT has 12 pos"):
        vocab.encode_utterance("u2", "the " * 11, positions=12)
    for text in ("", "zzz", "клок"):
        with pytest.raises(BadSample, match="utterance u3: no piece in BERT's vocabulary"):
            vocab.encode_utterance("u3", text)


def test_bad_vocabularies(folder, tmp_path):
    with pytest.raises(InputError, match="empty: no text has a piece that BERT knows"):
        BertVocab.build(folder, ["zzz"])
    without = write_bert(tmp_path / "b", vocab=[token for token in VOCAB if token != "[MASK]"])
    with pytest.raises(InputError, match=r"vocab.txt: no \[MASK\]; is this the vocab.txt of a BERT"):
        BertVocab.build(without, TEXTS)
    with pytest.raises(InputError, match="vocabulary of 21 tokens has no 'bird'"):
        BertVocab(VOCAB, Rules(), ["bird"])
    with pytest.raises(InputError, match=r"id 9 is outside the linguistic vocabulary \(0 to 8\)"):
        BertVocab.build(folder, TEXTS).decode([1, 9])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: (f / "vocab.txt").unlink(), "vocab.txt: no such file"),
        (lambda f: (f / "bert_vocab.json").unlink(), "bert_vocab.json: no such file"),
        (lambda f: (f / "bert_vocab.json").write_text("["), "bert_vocab.json:1: not JSON"),
        (
            lambda f: (f / "vocab.txt").write_text("".join(f"{t}\n" for t in [*VOCAB, "new"])),
            "bert_vocab.json: maps its ids to another vocabulary",
        ),
        (lambda f: edit(f, bert_ids=[2, 99]), "bert_vocab.json: damaged"),
        (lambda f: edit(f, spelling={"around": {}, "x": 1}), "bert_vocab.json: damaged"),
    ],
)
def test_damaged_folders(folder, tmp_path, damage, expected):
    saved = tmp_path / "saved"
    saved.mkdir()
    BertVocab.build(folder, TEXTS).save(saved)
    damage(saved)
    with pytest.raises(InputError, match=expected):
        BertVocab.load(saved)


def edit(folder, **values):
    file = folder / "bert_vocab.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
