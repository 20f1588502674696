"""CTC against the definition: the sum over all alignments, enumerated."""

import itertools
import math

import pytest
import torch

from speechkit.losses.ctc import ctc_loss, feasible


def collapse(path):
    """B of Graves et al. (2006): repeats merged, then blanks removed."""
    return [token for token, _ in itertools.groupby(path) if token != 0]


def brute_force(log_probs, target):
    """-log of the summed probability of every path that collapses to the target."""
    frames, vocab = log_probs.shape
    scores = [
        sum(log_probs[t, token].item() for t, token in enumerate(path))
        for path in itertools.product(range(vocab), repeat=frames)
        if collapse(path) == list(target)
    ]
    return -torch.tensor(scores, dtype=torch.float64).logsumexp(0).item() if scores else math.inf


def random_log_probs(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype).log_softmax(-1)


def test_equals_the_sum_over_all_alignments():
    targets = [[1, 2], [1, 1], [2], [], [1, 2, 1], [2, 2, 2], [1, 1, 2]]
    lengths = [5, 5, 4, 3, 5, 5, 4]
    log_probs = random_log_probs(len(targets), 5, 3)
    tokens = torch.full((len(targets), 3), 99)  # beyond the vocabulary: padding is not looked at
    for row, target in zip(tokens, targets):
        row[: len(target)] = torch.tensor(target, dtype=torch.int64)
    token_lengths = torch.tensor([len(target) for target in targets])
    losses = ctc_loss(log_probs, torch.tensor(lengths), tokens, token_lengths)
    for i, (target, frames) in enumerate(zip(targets, lengths)):
        assert losses[i].item() == pytest.approx(brute_force(log_probs[i, :frames], target), abs=1e-10)


def test_gradient_equals_that_of_the_enumeration():
    logits = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    target = [1, 2]
    paths = [p for p in itertools.product(range(3), repeat=4) if collapse(p) == target]
    log_probs = logits.log_softmax(-1)
    exact = -torch.stack([sum(log_probs[0, t, k] for t, k in enumerate(p)) for p in paths]).logsumexp(0)
    (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
    loss = ctc_loss(log_probs, torch.tensor([4]), torch.tensor([target]), torch.tensor([2]))
    (got,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_another_blank():
    log_probs = random_log_probs(2, 6, 4)
    lengths, tokens, sizes = torch.tensor([6, 5]), torch.tensor([[1, 2], [3, 3]]), torch.tensor([2, 2])
    moved = log_probs[..., [1, 2, 3, 0]]
    expected = ctc_loss(log_probs, lengths, tokens, sizes)
    torch.testing.assert_close(ctc_loss(moved, lengths, tokens - 1, sizes, blank=3), expected)


def test_feasible_says_exactly_when_the_loss_is_finite():
    for target in itertools.chain.from_iterable(itertools.product([1, 2], repeat=n) for n in range(4)):
        for frames in range(1, 7):
            loss = ctc_loss(
                random_log_probs(1, frames, 3), torch.tensor([frames]),
                torch.tensor([target], dtype=torch.int64).view(1, -1), torch.tensor([len(target)]),
            )  # fmt: skip
            assert feasible(frames, target) == bool(loss.isfinite()), (frames, target)


def test_padded_frames_are_not_seen():
    log_probs = random_log_probs(3, 9, 5, dtype=torch.float32)
    spoilt = log_probs.clone()
    spoilt[0, 7:], spoilt[1, 4:] = float("nan"), 3.0
    tokens = torch.randint(1, 5, (3, 2))
    lengths, sizes = torch.tensor([7, 4, 9]), torch.tensor([2, 1, 2])
    assert torch.equal(ctc_loss(log_probs, lengths, tokens, sizes), ctc_loss(spoilt, lengths, tokens, sizes))


def test_bitwise_repeatable_forwards_and_backwards():
    logits = torch.randn(8, 60, 30, requires_grad=True)
    tokens, lengths, sizes = torch.randint(1, 30, (8, 20)), torch.arange(46, 61, 2), torch.arange(5, 21, 2)

    def run():
        losses = ctc_loss(logits.log_softmax(-1), lengths, tokens, sizes)
        return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]

    first = run()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, run()))


def test_half_precision_is_refused_and_autocast_does_no_harm():
    log_probs = random_log_probs(1, 4, 3, dtype=torch.float32)
    arguments = torch.tensor([4]), torch.tensor([[1, 2]]), torch.tensor([2])
    with pytest.raises(TypeError, match="fp32"):
        ctc_loss(log_probs.bfloat16(), *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ctc_loss(log_probs, *arguments).dtype == torch.float32
