"""Every kind of tokenizer: ids, text and back, saved and loaded."""

import json

import pytest

from speechkit.errors import BadSample, InputError
from speechkit.text.normalise import Config, Normaliser
from speechkit.text.tokenizer import build_tokenizer, load_tokenizer

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen liquor jugs",
    "how vexingly quick daft zebras jump",
    "don't the cats like unaffable dogs",
    "café naïve नमस्ते दुनिया 😀 مرحبا",
] * 4

BERT = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "'", "-", "the", "don", "t", "cat", "##s"]


@pytest.fixture
def bert(tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(BERT) + "\n")
    return folder


def test_char_ids_by_hand():
    tokenizer = build_tokenizer("char", ["ab ba", "c"])
    assert tokenizer.vocab == ["<blank>", "<unk>", "▁", "a", "b", "c", "<sos/eos>"]
    assert (tokenizer.blank, tokenizer.unk, tokenizer.eos) == (0, 1, 6)
    assert tokenizer.encode(" ab   ca?") == [3, 4, 2, 5, 3, 1]
    assert tokenizer.decode([0, 3, 0, 4, 2, 2, 5, 6]) == "ab c"
    assert tokenizer.decode([3, 1]) == "a<unk>"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("char", {}),
        ("word", {}),
        ("phone", {}),
        ("bpe", {"size": 90}),
        ("unigram", {"size": 68}),
        ("bpe", {"size": 340, "byte_fallback": True}),
    ],
)
def test_all_training_text_comes_back_also_after_loading(kind, options, tmp_path):
    tokenizer = build_tokenizer(kind, SENTENCES, **options)
    if "size" in options:
        assert len(tokenizer) == options["size"]
    tokenizer.save(tmp_path / "tokens")
    loaded = load_tokenizer(tmp_path / "tokens")
    assert loaded.vocab == tokenizer.vocab and loaded.kind == kind
    for sentence in SENTENCES:
        ids = tokenizer.encode(sentence)
        assert tokenizer.unk not in ids and tokenizer.blank not in ids and tokenizer.eos not in ids
        assert loaded.encode(sentence) == ids
        assert loaded.decode(ids) == tokenizer.normaliser(sentence)


def test_tokens_file_lists_every_id(tmp_path):
    tokenizer = build_tokenizer("char", SENTENCES)
    tokenizer.save(tmp_path / "t")
    lines = (tmp_path / "t" / "tokens.txt").read_text().split("\n")[:-1]
    assert lines == [f"{token} {id_}" for id_, token in enumerate(tokenizer.vocab)]


def test_normaliser_is_applied_saved_and_loaded(tmp_path):
    normaliser = Normaliser(Config(case="lower", punctuation="remove"))
    build_tokenizer("char", ["Hello, World"], normaliser).save(tmp_path / "t")
    loaded = load_tokenizer(tmp_path / "t")
    assert loaded.normaliser.config == normaliser.config
    assert loaded.decode(loaded.encode("HELLO world!")) == "hello world"


def test_training_twice_gives_the_same_sentencepiece_model(tmp_path):
    for kind, size in (("bpe", 90), ("unigram", 68)):
        models = [build_tokenizer(kind, SENTENCES, size=size).units.model for _ in range(2)]
        assert models[0] == models[1]


def test_byte_fallback_writes_what_was_never_seen():
    tokenizer = build_tokenizer("bpe", ["abc cab"] * 5, size=270, byte_fallback=True)
    text = "xyz Ж 😀 क्ष"
    assert tokenizer.unk not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_existing_sentencepiece_model_is_taken_over(tmp_path):
    trained = build_tokenizer("bpe", SENTENCES, size=90)
    (tmp_path / "x.model").write_bytes(trained.units.model)
    assert build_tokenizer("bpe", [], model=tmp_path / "x.model").vocab == trained.vocab


def test_words_by_count_and_by_list(tmp_path):
    tokenizer = build_tokenizer("word", ["a a b", "a c c"], min_count=2)
    assert tokenizer.vocab[2:-1] == ["a", "c"]
    assert tokenizer.decode(tokenizer.encode("a b c")) == "a <unk> c"
    (tmp_path / "words").write_text("zebra 17\nant 3\n")
    assert build_tokenizer("word", ["a"], words=tmp_path / "words").vocab[2:-1] == ["ant", "zebra"]


def test_a_special_token_spelled_in_the_text_is_unknown():
    tokenizer = build_tokenizer("word", ["<blank> <unk> <sos/eos> word"])
    assert tokenizer.encode("<blank> word <sos/eos>") == [1, 2, 1]


def test_phones_of_a_lexicon(tmp_path):
    (tmp_path / "lexicon").write_text("the ð ə\nthe ð iː\ncat k æ t\na ə\n")
    tokenizer = build_tokenizer("phone", ["the cat"], lexicon=tmp_path / "lexicon")
    assert tokenizer.vocab[2:-1] == ["k", "t", "æ", "ð", "ə"]
    assert tokenizer.decode(tokenizer.encode("the cat")) == "ð ə k æ t"
    # A word outside the lexicon that is spelled like a phone is unknown all the same.
    assert tokenizer.encode("t") == [tokenizer.unk]
    tokenizer.save(tmp_path / "t")
    assert load_tokenizer(tmp_path / "t").encode("a cat") == tokenizer.encode("a cat")


def test_wordpiece_keeps_bert_ids(bert, tmp_path):
    tokenizer = build_tokenizer("wordpiece", [], vocab=bert, pieces="full")
    assert tokenizer.vocab == ["<blank>", "<unk>", *BERT[6:], "<sos/eos>"]
    text = "The cats don't zzz"
    ids = [tokenizer.units.bert_ids[id_] for id_ in tokenizer.encode(text)]
    from transformers import BertTokenizerFast

    theirs = BertTokenizerFast(vocab={token: i for i, token in enumerate(BERT)}, do_lower_case=True)
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.units.bert_ids[tokenizer.eos] == BERT.index("[SEP]")
    assert tokenizer.decode(tokenizer.encode("the cats don't")) == "the cats don't"
    tokenizer.save(tmp_path / "t")
    assert load_tokenizer(tmp_path / "t").units.bert_ids == tokenizer.units.bert_ids


def test_wordpiece_reads_special_tokens_in_text_as_letters(bert):
    tokenizer = build_tokenizer("wordpiece", [], vocab=bert, pieces="full")
    assert set(tokenizer.encode("[SEP]")) == {tokenizer.unk}


def test_cased_bert_from_its_configuration(bert):
    (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    tokenizer = build_tokenizer("wordpiece", [], vocab=bert, pieces="full")
    assert tokenizer.encode("The") == [tokenizer.unk]


def test_utterance_without_a_known_token():
    tokenizer = build_tokenizer("char", ["abc"])
    assert tokenizer.encode_utterance("u1", "cab") == tokenizer.encode("cab")
    for text in ("", "ЖЖ", "Ж Ж"):
        with pytest.raises(BadSample, match="utterance u2: no token in the vocabulary"):
            tokenizer.encode_utterance("u2", text)


def test_decode_refuses_ids_outside_the_vocabulary():
    tokenizer = build_tokenizer("char", ["abc"])
    for id_ in (-1, len(tokenizer)):
        with pytest.raises(InputError, match="outside the vocabulary"):
            tokenizer.decode([id_])
