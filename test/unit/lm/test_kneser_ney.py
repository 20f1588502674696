"""Kneser-Ney estimates against lmplz's and the model's own axioms."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from speechkit.errors import InputError
from speechkit.lm import read_arpa, train_ngram
from speechkit.lm.kneser_ney import FALLBACK

FIXTURES = Path(__file__).parents[2] / "fixtures"
TEXT = (FIXTURES / "harbour.txt").read_text().splitlines()


def table(lm):
    """N-gram -> (log10, back-off)."""
    rows, texts = {}, [()]
    for level in lm.levels:
        texts = [(*texts[p], lm.words[w]) for p, w in zip(level.prefix, level.word)]
        rows.update(zip(texts, zip(level.log10.tolist(), level.backoff.tolist())))
    return rows


def read_plainly(path):
    """The same from an ARPA file, without our reader."""
    rows = {}
    for line in path.read_text().splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            rows[tuple(fields[1].split(" "))] = (
                float(fields[0]),
                float(fields[2]) if len(fields) > 2 else 0.0,
            )
    return rows


def test_equals_lmplz():
    ours, theirs = table(train_ngram(TEXT, 3)), read_plainly(FIXTURES / "harbour.3.arpa")
    assert ours.keys() == theirs.keys() and len(theirs) > 400
    keys = list(theirs)
    np.testing.assert_allclose([ours[k] for k in keys], [theirs[k] for k in keys], atol=2e-6)


def test_worked_by_hand():
    """`a b | a`, bigrams with fallback discounts 0.5, 1, 1.5.

    Adjusted unigram counts: a 1 (after <s>), b 1 (after a), </s> 2 (after b, after a): 4 in all, discounts
    0.5 + 0.5 + 1 = 2 leave a weight of 1/2 for 1/V = 1/4 (<unk>, </s>, a, b). p(a) = .5/4 + 1/8 = 1/4,
    p(</s>) = 1/4 + 1/8 = 3/8. After <s>: a twice, so p(a | <s>) = (2 - 1)/2 + 1/2 * 1/4 = 5/8. After a:
    b and </s> once each: weight 1/2, p(b | a) = 1/4 + 1/2 * 1/4 = 3/8.
    """
    rows = table(train_ngram(["a b", "a"], 2, discount_fallback=FALLBACK))
    expected = {("a",): 1 / 4, ("</s>",): 3 / 8, ("<unk>",): 1 / 8, ("<s>", "a"): 5 / 8, ("a", "b"): 3 / 8}
    assert {k: 10 ** rows[k][0] for k in expected} == pytest.approx(expected, rel=1e-6)
    assert 10 ** rows["a",][1] == pytest.approx(1 / 2) and rows["<s>",] == pytest.approx((0.0, np.log10(0.5)))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("words", [None, ["tide", "the", "sees", "kelp", "never"]])
def test_probabilities_of_every_context_sum_to_one(order, words):
    lm = train_ngram(TEXT, order, words=words, discount_fallback=FALLBACK)
    predicted = np.array([lm.index[word] for word in lm.words if word != "<s>"])
    states = np.unique(lm._state)
    assert len(states) > (100 if order > 2 and words is None else 0)
    for state in states:
        log10, _ = lm.advance(np.full(len(predicted), state), predicted)
        assert (10**log10).sum() == pytest.approx(1.0, abs=2e-6)


def test_a_word_list_limits_the_vocabulary():
    lm = train_ngram(TEXT, 2, words=["the", "tide", "never"], discount_fallback=FALLBACK)
    assert lm.words == ["<unk>", "<s>", "</s>", "the", "tide", "never"]
    rows = table(lm)
    assert rows["<unk>",][0] > rows["never",][0]  # seen in the text as other words; never seen at all
    assert ("the", "<unk>") in rows


def test_duplicated_text_and_bad_requests_are_refused():
    with pytest.raises(
        InputError, match=r"discounts of order 1: no 1-gram has an adjusted count of 1.*--discount-fallback"
    ):
        train_ngram(["a b c"] * 9, 1)
    with pytest.raises(InputError, match="order 7: n-gram models have an order of 1 to 6"):
        train_ngram(TEXT, 7)
    with pytest.raises(InputError, match="names a word twice, or one of"):
        train_ngram(TEXT, 1, words=["a", "a"])


def test_longer_contexts_than_any_sentence():
    lm = train_ngram(["a", "b a"], 6, discount_fallback=FALLBACK)
    assert lm.order == 6 and np.isfinite(lm.score("a b a b a b a"))


def test_golden_file_reads_back_what_we_estimate():
    ours, golden = train_ngram(TEXT, 3), read_arpa(FIXTURES / "harbour.3.arpa")
    sentences = [
        *TEXT,
        "the unseen eel",
        " ".join(a + " " + b for a, b in product(["tide", "boat"], ["sees", "x"])),
    ]
    np.testing.assert_allclose(
        ours.score_sentences(sentences).log10, golden.score_sentences(sentences).log10, atol=2e-5
    )
