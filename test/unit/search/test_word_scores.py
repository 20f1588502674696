"""Scores of a vocabulary's words against an enumeration of all paths."""

import itertools
import math

import pytest
import torch

from speechkit.search.word_scores import FLOOR, WordScores

SPELLINGS = [None, (1,), (1, 1), (1, 2), (2, 3, 1), (3,)]


def by_enumeration(log_probs, spelling):
    """The probability of all paths that collapse to the spelling."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        kept = [token for i, token in enumerate(path) if i == 0 or path[i - 1] != token]
        if tuple(filter(None, kept)) == spelling:
            total += math.exp(sum(float(log_probs[t, token]) for t, token in enumerate(path)))
    return total


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_sums_over_all_paths(seed):
    log_probs = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    starts, ends = torch.tensor([1, 0, 3]), torch.tensor([4, 6, 6])
    found = WordScores(SPELLINGS)(log_probs, starts, ends)
    for row, start, end in zip(found, starts.tolist(), ends.tolist()):
        totals = [by_enumeration(log_probs[start:end], spelling) for spelling in SPELLINGS[1:]]
        expected = [math.log(total / max(totals)) for total in totals]
        torch.testing.assert_close(row[1:], torch.tensor(expected), rtol=0, atol=2e-5)
        assert row[0] == FLOOR  # it cannot be spelt


def test_what_does_not_fit_ends_at_the_floor_and_nothing_at_zero():
    scores = WordScores([None, (1,), (1, 1), (2, 3, 1)])
    log_probs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    short, none = scores(log_probs, torch.tensor([2, 2]), torch.tensor([4, 2]))
    assert short.tolist() == [FLOOR, 0.0, FLOOR, FLOOR]  # `1 1` needs a blank between, `2 3 1` three frames
    assert none.tolist() == [0.0] * 4
    assert scores(
        log_probs, torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64)
    ).shape == (0, 4)
    assert WordScores([None])(log_probs, torch.tensor([0]), torch.tensor([5])).tolist() == [[0.0]]


def test_a_long_stretch_neither_under_nor_overflows():
    log_probs = torch.full((4000, 3), -8.0)
    log_probs[:, 0] = math.log(1 - 2 * math.exp(-8))
    found = WordScores([(1,), (2,), (1, 2)])(log_probs, torch.tensor([0]), torch.tensor([4000]))
    assert torch.isfinite(found).all() and found[0].max() == 0
    assert abs(float(found[0, 0] - found[0, 1])) < 1e-3
