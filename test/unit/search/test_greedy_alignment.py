"""Greedy search and forced alignment against enumeration."""

import itertools

import pytest
import torch

from speechkit.search.alignment import ctc_align
from speechkit.search.greedy import ctc_greedy, ctc_greedy_spans


def collapse(path, blank=0):
    return [token for token, _ in itertools.groupby(path) if token != blank]


@pytest.mark.parametrize("blank", [0, 2])
def test_greedy_collapses_the_best_path(blank):
    log_probs = torch.randn(40, 9, 3).log_softmax(-1)
    lengths = torch.randint(0, 10, (40,))
    expected = [collapse(row[:n].tolist(), blank) for row, n in zip(log_probs.argmax(-1), lengths)]
    assert ctc_greedy(log_probs, lengths, blank) == expected
    log_probs[torch.arange(9) >= lengths[:, None]] = 99.0  # padding is never read
    assert ctc_greedy(log_probs, lengths, blank) == expected
    assert ctc_greedy(log_probs[:, :0], torch.zeros(40).long(), blank) == [[]] * 40


def test_greedy_spans():
    path = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 2, 0, 0, 1, 1]])
    log_probs = torch.nn.functional.one_hot(path, 3).float()
    spans = ctc_greedy_spans(log_probs, torch.tensor([6, 5]))
    assert [tuple(s) for s in spans[0]] == [(1, 0, 2), (1, 3, 4), (2, 4, 6)]
    assert [tuple(s) for s in spans[1]] == [(2, 1, 2), (1, 4, 5)]


def test_alignment_is_the_best_of_all_paths():
    batch, frames, vocab = 12, 6, 3
    log_probs = torch.randn(batch, frames, vocab).double().log_softmax(-1)
    lengths = torch.tensor([6, 6, 5, 4, 3, 6, 2, 6, 1, 6, 5, 4])
    tokens = torch.randint(1, vocab, (batch, 3))
    counts = torch.tensor([3, 2, 3, 3, 2, 0, 2, 1, 1, 3, 2, 3])
    found = ctc_align(log_probs, lengths, tokens, counts)
    feasible = 0
    for row in range(batch):
        wanted = tokens[row, : counts[row]].tolist()
        paths = [
            (sum(float(log_probs[row, t, k]) for t, k in enumerate(path)), path)
            for path in itertools.product(range(vocab), repeat=int(lengths[row]))
            if collapse(path) == wanted
        ]
        if not paths:
            assert found[row].score == -torch.inf and found[row].spans == []
            continue
        feasible += 1
        score, path = max(paths)
        assert found[row].score == pytest.approx(score)
        runs, start = [], 0
        for token, run in itertools.groupby(path):
            end = start + len(list(run))
            if token:
                runs.append((token, start, end))
            start = end
        assert [tuple(span) for span in found[row].spans] == runs
    assert 8 <= feasible < batch


def test_alignment_of_nothing():
    log_probs = torch.zeros(2, 0, 3)
    found = ctc_align(log_probs, torch.tensor([0, 0]), torch.tensor([[1], [1]]), torch.tensor([0, 1]))
    assert found[0].score == 0.0 and found[1].score == -torch.inf


def test_alignment_ignores_padding():
    log_probs = torch.randn(1, 5, 4).log_softmax(-1)
    tokens = torch.tensor([[1, 3]])
    alone = ctc_align(log_probs, torch.tensor([5]), tokens, torch.tensor([2]))[0]
    padded = torch.cat([log_probs, torch.full((1, 4, 4), 7.0)], 1)
    more = torch.tensor([[1, 3, 2, 2]])
    assert ctc_align(padded, torch.tensor([5]), more, torch.tensor([2]))[0] == alone
