"""Scoring with full back-off against a plain recursion, batches against single words."""

import gzip
import math
from itertools import product

import numpy as np
import pytest
import torch

from speechkit.lm import read_arpa, train_ngram, write_arpa
from speechkit.lm.kneser_ney import FALLBACK

ARPA = """\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.5
-0.9\t</s>
-0.6\ta\t-0.3
-0.7\tb\t0.2

\\2-grams:
-0.2\t<s> a\t-0.1
-0.4\ta b
-0.8\tb a\t-0.7
-0.3\tb </s>

\\3-grams:
-0.05\t<s> a b
-0.15\ta b a

\\end\\
"""


def recursion(rows, context, word):
    """Katz's rule on a table n-gram -> (log10, back-off), the context cut to two words."""
    context = context[-2:]
    if (*context, word) in rows:
        return rows[(*context, word)][0]
    return rows.get(context, (0, 0.0))[1] + recursion(rows, context[1:], word)


def rows_of(text):
    rows = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            rows[tuple(fields[1].split())] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)
    return rows


@pytest.fixture
def lm(tmp_path):
    (tmp_path / "a.arpa").write_text(ARPA)
    return read_arpa(tmp_path / "a.arpa")


def test_every_sentence_scores_as_the_recursion_says(lm):
    rows = rows_of(ARPA)
    for length in range(5):
        for words in product(["a", "b", "zz"], repeat=length):
            history, expected = ("<s>",), 0.0
            for word in (*words, "</s>"):
                word = word if word != "zz" else "<unk>"
                expected += recursion(rows, history, word)
                history = (*history, word)
            assert lm.score(" ".join(words)) == pytest.approx(expected, abs=1e-6)


def test_scores_without_begin_and_end(lm):
    assert lm.score("a b", bos=False, eos=False) == pytest.approx(-0.6 - 0.4)
    assert lm.score("", bos=True, eos=False) == 0.0


def test_batches_and_tensors_equal_single_words(lm):
    states, words = lm.begin * np.ones(6, dtype=np.int64), lm.ids(["a", "b", "zz", "a", "b", "zz"])
    scores, new = lm.advance(states, words)
    for i in range(6):
        one, state = lm.advance(states[i : i + 1], words[i : i + 1])
        assert one[0] == scores[i] and state[0] == new[i]
    as_tensor, new_tensor = lm.advance(torch.from_numpy(states), torch.from_numpy(words))
    assert as_tensor.tolist() == scores.tolist() and new_tensor.tolist() == new.tolist()
    assert (states == lm.begin).all()  # the caller's array is its own


def test_states_are_as_short_as_possible(lm):
    """After `b b` only `b` matters (no 3-gram begins so); `a` after <s> keeps both words."""
    _, state = lm.advance(np.array([lm.begin]), lm.ids(["b"]))
    _, twice = lm.advance(state, lm.ids(["b"]))
    assert state[0] == twice[0]
    _, long = lm.advance(np.array([lm.begin]), lm.ids(["a"]))
    _, short = lm.advance(np.array([lm.root]), lm.ids(["a"]))
    assert long[0] != short[0]


def test_sentences_together_equal_one_by_one(lm):
    sentences = ["a b a", "", "zz a", "b", "a zz b zz"]
    scores = lm.score_sentences(sentences)
    assert scores.log10.tolist() == pytest.approx([lm.score(s) for s in sentences])
    assert scores.oov.tolist() == [0, 0, 1, 0, 2] and scores.counts.tolist() == [4, 1, 3, 2, 5]
    assert lm.perplexity(sentences) == pytest.approx(10 ** (-scores.log10.sum() / 15))
    without = scores.perplexity(with_oov=False)
    assert without == pytest.approx(10 ** (-scores.known.sum() / 12)) and without < lm.perplexity(sentences)
    assert math.isnan(lm.score_sentences([]).perplexity())


def test_upper_bound_holds_in_every_context(tmp_path):
    lm = train_ngram(["a b c", "b c", "a c b", "c", "a b"], 3, discount_fallback=FALLBACK)
    bound = lm.best_log10()
    for word in range(len(lm.words)):
        if word != lm.bos:
            scores, _ = lm.advance(np.unique(lm._state), np.full(len(np.unique(lm._state)), word))
            assert (scores <= bound[word] + 1e-6).all()


def test_a_weight_above_one_makes_the_bound_trivial(lm):
    assert (lm.best_log10() == 0).all()


@pytest.mark.parametrize("name", ["x.arpa", "x.arpa.gz"])
def test_round_trip(tmp_path, lm, name):
    write_arpa(lm, tmp_path / name)
    again = read_arpa(tmp_path / name)
    assert again.words == lm.words
    for one, two in zip(lm.levels, again.levels):
        for column in ("prefix", "word", "suffix", "log10", "backoff"):
            assert (getattr(one, column) == getattr(two, column)).all()
    first = (tmp_path / name).read_bytes()
    write_arpa(again, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    if name.endswith("gz"):
        assert gzip.decompress(first).startswith(b"\\data\\\nngram 1=5\n")


def test_without_unknown_word_and_with_a_lacking_suffix(tmp_path):
    """As kenlm: <unk> gets -100; a pruned model may hold `x b a` without `b a`."""
    text = ARPA.replace("-1.0\t<unk>\n", "").replace("1=5", "1=4").replace("-0.8\tb a\t-0.7\n", "")
    (tmp_path / "a.arpa").write_text(text.replace("2=4", "2=3"))
    lm = read_arpa(tmp_path / "a.arpa")
    assert lm.score("zz", bos=False, eos=False) == -100.0
    rows = rows_of(text)
    assert lm.score("a b a b", eos=False) == pytest.approx(
        -0.2 - 0.05 - 0.15 + recursion(rows, ("b", "a"), "b"), abs=1e-6
    )
