"""Batched Levenshtein alignment against a memoised recursion, and its ties by hand."""

from functools import lru_cache

import pytest
import torch

from speechkit.data.batch import pad
from speechkit.search.token_alignment import align_tokens


def align(*pairs):
    """Alignments of (hypothesis, reference) pairs of lists, with junk at padding."""
    hyps = pad([torch.tensor(hyp, dtype=torch.int64) for hyp, _ in pairs], 3)
    refs = pad([torch.tensor(ref, dtype=torch.int64) for _, ref in pairs], 3)
    return align_tokens(hyps.values, hyps.lengths, refs.values, refs.lengths)


def by_recursion(hyp, ref):
    """Partners and counts, walking back from the ends: match, substitution, deletion, insertion."""

    @lru_cache(None)
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        diagonal = distance(i - 1, j - 1) + (hyp[i - 1] != ref[j - 1])
        return min(diagonal, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    def best(i, j):
        if i == 0 and j == 0:
            return [], (0, 0, 0, 0)
        here = distance(i, j)
        choices = []
        if i and j and here == distance(i - 1, j - 1) + (hyp[i - 1] != ref[j - 1]):
            choices.append((0 if hyp[i - 1] == ref[j - 1] else 1, i - 1, j - 1, [j - 1]))
        if j and here == distance(i, j - 1) + 1:
            choices.append((2, i, j - 1, []))
        if i and here == distance(i - 1, j) + 1:
            choices.append((3, i - 1, j, [-1]))
        kind, i, j, partner = min(choices)
        partners, counts = best(i, j)
        return partners + partner, tuple(n + (k == kind) for k, n in enumerate(counts))

    return *best(len(hyp), len(ref)), distance(len(hyp), len(ref))


@pytest.mark.parametrize(
    "hyp, ref, partners, counts",
    [
        ([1, 2, 3], [1, 2, 3], [0, 1, 2], (3, 0, 0, 0)),
        ([1, 9, 3], [1, 2, 3], [0, 1, 2], (2, 1, 0, 0)),
        ([1, 9, 2, 3], [1, 2, 3], [0, -1, 1, 2], (3, 0, 0, 1)),
        ([1, 3], [1, 2, 3], [0, 2], (2, 0, 1, 0)),
        ([], [1, 2], [], (0, 0, 2, 0)),
        ([1, 2], [], [-1, -1], (0, 0, 0, 2)),
        ([], [], [], (0, 0, 0, 0)),
        ([5], [5, 5], [1], (1, 0, 1, 0)),  # ties: the last one is matched
        ([5, 5], [5], [-1, 0], (1, 0, 0, 1)),
        ([8], [5, 5], [1], (0, 1, 1, 0)),  # a substitution before a deletion, from the end
        ([8, 9], [7], [-1, 0], (0, 1, 0, 1)),
        ([1, 2], [2, 3], [0, 1], (0, 2, 0, 0)),  # equal costs: two substitutions win over a match
    ],
)
def test_alignments_by_hand(hyp, ref, partners, counts):
    out = align((hyp, ref))
    assert out.partners[0].tolist() == partners
    assert tuple(int(n) for n in out[1:]) == counts


def test_a_batch_equals_the_recursion_for_each_pair():
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(120):
        sizes = torch.randint(0, 9, (2,), generator=generator).tolist()
        pairs.append([torch.randint(1, 5, (n,), generator=generator).tolist() for n in sizes])
    out = align(*pairs)
    for row, (hyp, ref) in enumerate(pairs):
        partners, counts, errors = by_recursion(tuple(hyp), tuple(ref))
        assert out.partners[row, : len(hyp)].tolist() == partners
        assert (out.partners[row, len(hyp) :] == -1).all()
        assert tuple(int(n[row]) for n in out[1:]) == counts
        assert int(out.errors[row]) == errors
        matched = [p for p in partners if p >= 0]
        assert matched == sorted(set(matched))
        assert len(matched) + counts[2] == len(ref) and len(matched) + counts[3] == len(hyp)


def test_a_batch_without_tokens():
    empty, none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    assert align_tokens(empty, none, empty, none).errors.tolist() == [0, 0]
    assert align_tokens(empty[:0], none[:0], empty[:0], none[:0]).partners.shape == (0, 0)
