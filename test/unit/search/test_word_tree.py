"""Scores of a vocabulary's words, and the best row of them, against an enumeration of all paths."""

import itertools
import math

import numpy as np
import pytest
import torch

from speechkit.search.word_tree import FLOOR, WordTree

SPELLINGS = [None, (1,), (1, 1), (1, 2), (2, 3, 1), (3,)]


SEPARATOR = 4


def drawn(seed, frames=6, scale=1.0, size=5):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(frames, size, generator=generator)).log_softmax(-1).numpy()


def collapsed(path):
    """What CTC makes of a path."""
    return tuple(token for i, token in enumerate(path) if token and (i == 0 or path[i - 1] != token))


def by_enumeration(log_probs, spelling):
    """The probability of all paths that collapse to the spelling."""
    paths = itertools.product(range(log_probs.shape[1]), repeat=len(log_probs))
    chances = (
        math.exp(sum(log_probs[t, token] for t, token in enumerate(path)))
        for path in paths
        if collapsed(path) == spelling
    )
    return sum(chances)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_sums_over_all_paths(seed):
    log_probs, starts, ends = drawn(seed), np.array([1, 0, 3]), np.array([4, 6, 6])
    found = WordTree(SPELLINGS, SEPARATOR).scores(log_probs, starts, ends)
    for row, start, end in zip(found, starts, ends):
        totals = [by_enumeration(log_probs[start:end], spelling) for spelling in SPELLINGS[1:]]
        expected = [math.log(total / max(totals)) for total in totals]
        np.testing.assert_allclose(row[1:], expected, rtol=0, atol=2e-5)
        assert row[0] == FLOOR  # it cannot be spelt


def test_what_does_not_fit_ends_at_the_floor_and_nothing_at_zero():
    tree, log_probs = WordTree([None, (1,), (1, 1), (2, 3, 1)], SEPARATOR), drawn(1)
    short, none = tree.scores(log_probs, np.array([2, 2]), np.array([4, 2]))
    assert short.tolist() == [FLOOR, 0.0, FLOOR, FLOOR]  # `1 1` needs a blank between, `2 3 1` three frames
    assert none.tolist() == [0.0] * 4
    nowhere = np.array([], np.int64)
    assert tree.scores(log_probs, nowhere, nowhere).shape == (0, 4)


def test_a_long_stretch_neither_under_nor_overflows():
    log_probs = np.full((4000, 3), -8.0)
    log_probs[:, 0] = math.log(1 - 2 * math.exp(-8))
    found = WordTree([(1,), (2,), (1, 2)], 9).scores(log_probs, np.array([0]), np.array([4000]))
    assert np.isfinite(found).all() and found[0].max() == 0
    assert abs(float(found[0, 0] - found[0, 1])) < 1e-3


def best_by_enumeration(log_probs, price):
    """The words of the best path of those that spell words with separators between, before or after them."""
    words = {spelling: number for number, spelling in enumerate(SPELLINGS) if spelling}
    best = (-math.inf, None)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        parts = [()]
        for token in collapsed(path):
            parts[-1:] = [parts[-1], ()] if token == SEPARATOR else [(*parts[-1], token)]
        inner = parts[1:] if parts[0] == () and len(parts) > 1 else parts
        inner = inner[:-1] if inner[-1] == () else inner
        if all(part in words for part in inner) and (inner or SEPARATOR not in path):
            if parts[0] == ():
                continue  # no row of words begins with a separator
            score = sum(log_probs[t, token] for t, token in enumerate(path)) - price * len(inner)
            best = max(best, (score, [words[part] for part in inner]))
        elif not collapsed(path):
            best = max(best, (sum(log_probs[:, 0]), []))
    return best[1]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("price", [0.0, 1.5])
def test_the_best_row_is_that_of_the_best_path(seed, price):
    log_probs = drawn(seed, scale=2.0)
    (found,) = WordTree(SPELLINGS, SEPARATOR).best_rows(log_probs[None], np.array([6]), price)
    assert [word.word for word in found] == best_by_enumeration(log_probs, price)


def test_words_know_their_frames_and_rows_of_a_batch_do_not_meet():
    """`1 2`, a separator with a blank around it, `3`; and a shorter utterance beside it."""
    first, second = [1, 1, 2, 0, SEPARATOR, 0, 3, 3, 0], [3, SEPARATOR, 1]
    log_probs = np.full((2, 9, 5), -6.0)
    for row, path in enumerate((first, second)):
        log_probs[row, np.arange(len(path)), path] = -0.01
    tree = WordTree(SPELLINGS, SEPARATOR)
    rows = tree.best_rows(log_probs, np.array([9, 3]), 0.5)
    assert [tuple(word) for word in rows[0]] == [(3, 0, 4), (5, 6, 9)]
    assert [tuple(word) for word in rows[1]] == [(5, 0, 1), (1, 2, 3)]
    assert tree.best_rows(log_probs[1:, :3], np.array([3]), 0.5) == [rows[1]]
    assert tree.best_rows(log_probs[:1], np.array([0]), 0.5) == [[]]
    assert tree.best_rows(log_probs[:0], np.array([], np.int64), 0.5) == []
