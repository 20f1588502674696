"""Text comes back from BERT's pieces where the training text shows how it is written."""

import unicodedata

import pytest
from bert_folders import SPECIAL
from hypothesis import given, settings
from hypothesis import strategies as st

from speechkit.text.spelling import Spelling, is_chinese, is_mark, learn
from speechkit.text.wordpiece_cut import Cutter, Rules

LETTERS = "abcdefghijklmnopqrstuvwxyz'’-,.éạ你好吗我用"
VOCAB = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]


def roundtrip(texts, others=(), lower=True):
    """What the texts become that are cut into pieces after learning from `texts`."""
    cutter = Cutter(VOCAB, Rules(lower))
    spelling = learn(texts, cutter.words, lower)
    spelling = Spelling(**spelling.record())
    return [spelling.join(cutter.split(text)) for text in (*texts, *others)]


@pytest.mark.parametrize(
    "texts",
    [
        ["don't stop", "it's o'clock"],
        ["the boys' hats and the boy's hat", "'tis rock 'n' roll", "the boys'"],
        ["a mother-in-law", "well - no", "pre- and post-war"],
        ["hello, world. yes", "one,two , three"],
        ["你好吗", "我用你"],
        ["你 好 吗", "我 用 你"],
        ["我用 abc 你好", "abc 好"],
        ["DON'T STOP", "THE BOYS' HATS"],
        ["éa ạb", "cạ’é"],
        ["", "a"],
    ],
)
def test_training_text_comes_back(texts):
    assert roundtrip(texts) == texts


def test_what_was_learnt_helps_words_that_were_not_seen_together():
    seen = ["the boys' hats are here", "the girl's coat", "get 'em", "the girls' coats"]
    new = ["the boys' coats", "the dog's hats", "see 'em", "the girls' hats"]
    assert roundtrip(seen, new)[len(seen) :] == new


def test_what_no_text_shows_stands_inside_words():
    join = Spelling().join
    assert join(["don", "'", "t", "o", "’", "c", "##lock", "a", "-", "b"]) == "don't o’clock a-b"
    assert join(["'", "a", ",", "b", "'"]) == "' a , b '"
    assert join(["你", "好", "a", "b", "吗"]) == "你好 a b 吗"
    assert join([]) == "" and join(["##s", "a"]) == "s a"
    assert join(["#", "##", "#"]) == "# ## #"


def test_the_most_frequent_way_wins():
    assert roundtrip(["a-b", "a-b", "a - b"])[2] == "a-b"


def test_capitals_come_back_only_where_all_letters_are():
    assert roundtrip(["DON'T", "don't"]) == ["don't", "don't"]
    assert roundtrip(["A <B>", "C"], lower=True)[1] == "C"
    assert Spelling(upper=True).join(["a", "<unk>", "b"]) == "A <unk> B"


def test_marks_and_chinese_are_those_of_bert():
    cutter = Cutter(VOCAB, Rules())
    for code in [*range(0x21, 0x3100), *range(0x3400, 0x3410), *range(0x9FF0, 0xA000), 0x20000, 0x2F800]:
        letter = chr(code)
        category = unicodedata.category(letter)
        if category != unicodedata.ucd_3_2_0.category(letter):
            continue  # libraries know different versions of Unicode
        if letter.strip() and cutter.words(letter) == [letter]:
            alone = cutter.words(f"a{letter}b") == ["a", letter, "b"]
            assert alone == (is_mark(letter) or is_chinese(letter)), hex(code)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("ab'-", min_size=1, max_size=6), min_size=1, max_size=5))
def test_one_sentence_comes_back_but_for_contradictions(words):
    """With every mark between two neighbours of its own there is nothing to contradict."""
    text = " ".join(words)
    cut = Cutter(VOCAB, Rules()).words(text)
    contexts = [tuple(cut[max(i - 1, 0) : i + 2]) for i in range(len(cut)) if is_mark(cut[i])]
    if len(set(contexts)) == len(contexts):
        assert roundtrip([text], lower=False) == [text]
