"""BERT's cutting equals transformers'; its files are read as transformers writes them."""

import json
import random

import pytest
from bert_folders import SPECIAL, VOCAB, write_bert

from speechkit.errors import InputError
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.tokenizer import build_tokenizer, load_tokenizer
from speechkit.text.wordpiece_cut import Cutter, Rules, choose, read_folder, read_vocab

LETTERS = "abcXYéÉâạứñ'’-.,!?#@ \u00a0\t\u0301你好漢क्षி안😀ß0 9"


def pieces_of(seed):
    """A vocabulary in which some of the letters above can be spelt, with a few longer pieces."""
    draw = random.Random(seed)
    single = [letter for letter in LETTERS.lower() if letter.strip() and draw.random() < 0.8]
    longer = ["".join(draw.choice("abcéạ") for _ in range(draw.randint(2, 4))) for _ in range(30)]
    tokens = [*single, *longer, *(f"##{token}" for token in single + longer if draw.random() < 0.8)]
    return [*SPECIAL, *dict.fromkeys(tokens)]


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("chinese", [False, True])
def test_pieces_are_those_of_transformers(lower, strip, chinese):
    from transformers import BertTokenizerFast

    vocab, draw = pieces_of(lower * 4 + strip * 2 + chinese), random.Random(7)
    tokenizer = BertTokenizerFast(
        vocab={token: id_ for id_, token in enumerate(vocab)},
        do_lower_case=lower,
        strip_accents=strip,
        tokenize_chinese_chars=chinese,
    )
    cutter = Cutter(vocab, Rules(lower, strip, chinese))
    letters = LETTERS + "abcéạ" * 6
    texts = ["".join(draw.choice(letters) for _ in range(draw.randint(0, 25))) for _ in range(200)]
    split = [cutter.split(text) for text in texts]
    assert split == [tokenizer.tokenize(text) for text in texts]
    used = {piece for pieces in split for piece in pieces}
    assert "[UNK]" in used and any(len(piece) > 3 and piece.startswith("##") for piece in used)


def test_a_word_with_an_unseen_piece_is_spelt_with_seen_ones():
    vocab = [*SPECIAL, "cats", "cat", "##s", "c", "##at"]
    assert Cutter(vocab, Rules()).split("cats") == ["cats"]
    assert Cutter(vocab, Rules(), ["cat", "##s"]).split("cats") == ["cat", "##s"]
    assert Cutter(vocab, Rules(), ["c", "##at", "##s"]).split("cats cat") == ["c", "##at", "##s", "c", "##at"]
    # Where these cannot spell it either, BERT's own pieces stay, so that a report can name them.
    assert Cutter(vocab, Rules(), ["cat"]).split("cats zz") == ["cats", "[UNK]"]


def test_choice_of_pieces():
    texts = ["the dogs don't", "[SEP] zzz"]
    assert choose(VOCAB, Rules(), texts, "pruned") == ["'", "the", "don", "t", "##s", "dog"]
    assert choose(VOCAB, Rules(), texts, "full") == VOCAB[len(SPECIAL) :]
    # bert-base-chinese has a line separator among its tokens: no text has it as a piece.
    assert choose([*VOCAB, "\u2028"], Rules(), (), "full") == VOCAB[len(SPECIAL) :]


@pytest.mark.parametrize(
    ("said", "rules"),
    [
        ({}, Rules(True, False)),
        ({"do_lower_case": False}, Rules(False, False)),
        ({"do_lower_case": True, "strip_accents": None}, Rules(True, False)),
        ({"strip_accents": True, "tokenize_chinese_chars": False}, Rules(True, True, False)),
    ],
)
def test_rules_are_what_the_folder_says_and_accents_are_kept(tmp_path, said, rules):
    folder = write_bert(tmp_path / "bert", tokenizer=said)
    assert read_folder(folder) == (VOCAB, rules)
    assert read_folder(folder / "vocab.txt") == (VOCAB, rules)
    assert read_folder(folder, strip_accents=False)[1].strip_accents is False
    assert read_folder(folder, strip_accents=True)[1].strip_accents is True


def test_cased_tokens_say_so(tmp_path):
    assert read_folder(write_bert(tmp_path / "bert", vocab=[*VOCAB, "The"]))[1] == Rules(False, False)


def test_folders_of_transformers_5_have_no_vocab_txt(tmp_path):
    from transformers import BertTokenizerFast

    ids = {token: id_ for id_, token in enumerate(VOCAB)}
    for lower, strip in [(True, None), (False, True)]:
        BertTokenizerFast(vocab=ids, do_lower_case=lower, strip_accents=strip).save_pretrained(tmp_path)
        (tmp_path / "vocab.txt").unlink(missing_ok=True)
        assert read_folder(tmp_path) == (VOCAB, Rules(lower, bool(strip)))
        (tmp_path / "tokenizer_config.json").unlink()
        assert read_folder(tmp_path) == (VOCAB, Rules(lower, bool(strip)))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"type": "BPE", "vocab": {"a": 0}}, "tokenizer.json: BPE tokens; only BERTs with WordPiece"),
        ({"type": "WordPiece", "vocab": {"[PAD]": 0, "a": 2}}, "tokenizer.json: ids must be 0 to 1, each"),
        ({"type": "WordPiece", "vocab": {"[PAD]": 0, "a": 1}}, r"tokenizer.json: no \[UNK\]; is this"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, model, expected):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(InputError, match=expected):
        read_folder(tmp_path)


def test_lines_that_end_as_on_windows_and_tokens_that_are_blank(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*VOCAB, "\u2028", ""]).encode())
    assert read_vocab(tmp_path / "vocab.txt") == [*VOCAB, "\u2028"]


def test_pruned_tokenizer_keeps_its_pieces_and_spelling_when_loaded(tmp_path):
    folder = write_bert(tmp_path / "bert")
    texts = ["the boys' dogs", "the cat don't"]
    tokenizer = build_tokenizer("wordpiece", texts, vocab=folder)
    assert tokenizer.vocab[2:-1] == ["'", "the", "don", "t", "cat", "##s", "dog", "boys"]
    assert tokenizer.units.bert_ids == [0, 2, *(VOCAB.index(token) for token in tokenizer.vocab[2:-1]), 4]
    tokenizer.save(tmp_path / "t")
    again = load_tokenizer(tmp_path / "t")
    for text in [*texts, "boys don't", "boys' cats"]:
        assert again.encode(text) == tokenizer.encode(text)
        assert again.decode(again.encode(text)) == text
    assert again.encode("clock") == [again.unk]


def test_tokenizers_saved_before_there_was_a_choice(tmp_path):
    """Their record has `lower_case` and no rules: all pieces, and accents lost with capitals."""
    folder = write_bert(tmp_path / "bert")
    build_tokenizer("wordpiece", [], vocab=folder, pieces="full").save(tmp_path / "t")
    file = tmp_path / "t" / "tokenizer.json"
    record = json.loads(file.read_text())
    record["units"] = {"lower_case": True, "bert_ids": record["units"]["bert_ids"]}
    file.write_text(json.dumps(record))
    old = load_tokenizer(tmp_path / "t")
    assert old.vocab[2:-1] == VOCAB[len(SPECIAL) :]
    assert old.decode(old.encode("The cát don't")) == "the cat don't"


@pytest.mark.parametrize(
    "specials, before, after", [("sep_only", [], ["[SEP]"]), ("both", ["[CLS]"], ["[SEP]"])]
)
def test_special_tokens_stand_around_every_text_and_are_not_written(tmp_path, specials, before, after):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    options = {"vocab": tmp_path / "vocab.txt", "specials": specials}
    made = build_tokenizer("wordpiece", ["the cats", "cat"], **options)
    made.save(tmp_path / "saved")
    for tokenizer in (made, load_tokenizer(tmp_path / "saved")):
        assert tokenizer.vocab == ["<blank>", "<unk>", "the", "cat", "##s", *before, *after, "<sos/eos>"]
        ids = tokenizer.encode("the cats")
        assert [tokenizer.vocab[id_] for id_ in ids] == [*before, "the", "cat", "##s", *after]
        assert tokenizer.decode(ids) == "the cats" and tokenizer.decode(tokenizer.encode("")) == ""
        read = [tokens[tokenizer.units.bert_ids[id_]] for id_ in ids]
        assert read == [*before, "the", "cat", "##s", *after]
    with pytest.raises(InputError, match="without --specials"):
        BertVocab.from_tokenizer(made)
