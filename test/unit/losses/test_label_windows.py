"""Pruned transducers: windows that paths can pass, the cheap joint network, and the loss within windows."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from speechkit.losses.joint_transducer import joint_transducer_loss
from speechkit.losses.label_windows import Windows, additive_loss, label_windows
from speechkit.losses.transducer import transducer_loss
from speechkit.losses.transducer_lattice import NOTHING, Occupations

B, T, U, J, V = 3, 8, 5, 6, 9
LENGTHS, SIZES = torch.tensor([8, 5, 1]), torch.tensor([5, 2, 0])


def draw() -> tuple[list[Tensor], Tensor]:
    """The networks' states, an output layer, and targets."""
    torch.manual_seed(4)
    shapes = ((B, T, J), (B, U + 1, J), (V, J), (V,))
    parts = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    return [part.requires_grad_() for part in parts], torch.randint(1, V, (B, U))


def some_occupations(batch: int, frames: int, rows: int, lengths: Tensor, sizes: Tensor) -> Occupations:
    """Of random log-probabilities."""
    log_probs = (2 * torch.randn(batch, frames, rows, 4, dtype=torch.float64)).log_softmax(-1)
    return transducer_loss(log_probs[..., 0], log_probs[:, :, :-1, 1], lengths, sizes)[1]


def log_probs_of(parts: list[Tensor], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the blank and of the next label of all nodes, of the full joint network."""
    frames, states, weight, bias = parts
    log_probs = ((frames[:, :, None] + states[:, None]).tanh() @ weight.t() + bias).log_softmax(-1)
    label = log_probs[:, :, :-1].gather(3, tokens[:, None, :, None].expand(B, T, U, 1))[..., 0]
    return log_probs[..., 0], label


@pytest.mark.parametrize("width", [2, 3, 5, 40])
def test_windows_can_be_passed_from_the_first_node_to_the_last(width):
    torch.manual_seed(1)
    lengths, sizes = torch.tensor([30, 12, 3, 1, 4]), torch.tensor([20, 11, 0, 0, 6])
    found = some_occupations(5, 30, 21, lengths, sizes)
    starts, rows = label_windows(found, lengths, sizes, width)
    assert rows == min(max(width, 3), 21), "six labels in four frames need windows of three"
    for i, (t, u) in enumerate(zip(lengths.tolist(), sizes.tolist())):
        mine = starts[i, :t]
        assert mine[0] == 0 and int(mine[-1]) == max(0, u + 1 - rows)
        steps = mine.diff()
        assert torch.all(steps >= 0) and torch.all(steps <= rows - 1)


def test_no_other_windows_hold_more_of_the_paths():
    torch.manual_seed(2)
    frames, top, width = 5, 4, 2
    lengths, sizes = torch.tensor([frames]), torch.tensor([top])
    for _ in range(10):
        node = torch.rand(1, frames, top + 1, dtype=torch.float64)
        found = Occupations(torch.zeros(1), node, torch.zeros(1, frames, top, dtype=torch.float64))
        sums = []
        for middle in itertools.product(range(top), repeat=frames - 2):
            starts = [0, *middle, top + 1 - width]
            if all(0 <= b - a < width for a, b in itertools.pairwise(starts)):
                sums.append(sum(float(node[0, t, s : s + width].sum()) for t, s in enumerate(starts)))
        chosen = label_windows(found, lengths, sizes, width).starts[0].tolist()
        got = sum(float(node[0, t, s : s + width].sum()) for t, s in enumerate(chosen))
        assert len(sums) > 1 and got == pytest.approx(max(sums))


def test_the_cheap_network_has_the_loss_of_its_log_softmax():
    parts, tokens = draw()
    frames, states, a, d = parts
    c = torch.randn(V, J, dtype=torch.float64, requires_grad=True)
    losses, found = additive_loss(frames, states, tokens, LENGTHS, SIZES, (a, c, d))
    log_probs = ((frames @ a.t())[:, :, None] + (states @ c.t() + d)[:, None]).log_softmax(-1)
    label = log_probs[:, :, :-1].gather(3, tokens[:, None, :, None].expand(B, T, U, 1))[..., 0]
    wanted, occupied = transducer_loss(log_probs[..., 0], label, LENGTHS, SIZES)
    torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.node, occupied.node, rtol=0, atol=1e-12)
    inputs = [*parts, c]
    for x, y in zip(*(torch.autograd.grad(loss.sum(), inputs) for loss in (losses, wanted))):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_windows_of_all_rows_change_nothing(kept):
    parts, tokens = draw()
    found = some_occupations(B, T, U + 1, LENGTHS, SIZES)
    windows = label_windows(found, LENGTHS, SIZES, U + 1)
    both = [
        joint_transducer_loss(*parts, tokens, LENGTHS, SIZES, windows=w, kept=kept) for w in (None, windows)
    ]
    assert torch.equal(both[0][0], both[1][0]) and torch.equal(both[0][1].node, both[1][1].node)
    for x, y in zip(*(torch.autograd.grad(losses.sum(), parts) for losses, _ in both)):
        assert torch.equal(x, y)


@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("logits", [1, 60, 1 << 20])
def test_within_windows_the_loss_is_that_of_the_lattice_without_the_other_nodes(kept, logits):
    parts, tokens = draw()
    windows = label_windows(some_occupations(B, T, U + 1, LENGTHS, SIZES), LENGTHS, SIZES, 3)
    losses, found = joint_transducer_loss(
        *parts, tokens, LENGTHS, SIZES, windows=windows, logits=logits, kept=kept
    )
    rows = torch.arange(U + 1)
    inside = (rows >= windows.starts[..., None]) & (rows < windows.starts[..., None] + windows.width)
    assert 0 < (~inside).sum() < inside.numel()
    blank, label = log_probs_of(parts, tokens)
    blank, label = blank.where(inside, NOTHING), label.where(inside[:, :, :-1], NOTHING)
    wanted, _ = transducer_loss(blank, label, LENGTHS, SIZES)
    torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-12)
    assert found.node[~inside].abs().sum() == 0
    for x, y in zip(*(torch.autograd.grad(loss.sum(), parts) for loss in (losses, wanted))):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    whole, _ = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)
    assert torch.all(losses > whole - 1e-9) and losses[0] > whole[0] + 1e-6, "paths are left out"


def test_gradients_within_windows_pass_the_numerical_check():
    parts, tokens = draw()
    windows = Windows(torch.tensor([[0, 0, 1, 1, 2, 3, 3, 3], [0] * 8, [0] * 8]), 3)

    def loss(*parts: Tensor) -> Tensor:
        return joint_transducer_loss(*parts, tokens, LENGTHS, SIZES, windows=windows)[0]

    assert torch.autograd.gradcheck(loss, parts)
