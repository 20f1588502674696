"""The transducer's lattice and loss: all paths one by one, identities, gradients, padding, long inputs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from speechkit.losses.transducer import transducer_loss

LENGTHS, TOKENS = torch.tensor([6, 3, 1, 5, 2]), torch.tensor([4, 2, 3, 0, 1])


def draw(batch: int, frames: int, labels: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the blank and of the next label, of 7 outputs."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(batch, frames, labels + 1, 7, generator=generator, dtype=torch.float64)
    log_probs = logits.log_softmax(-1).to(dtype)
    return log_probs[..., 0].clone(), log_probs[:, :, :-1, 1].clone()


def enumerate_paths(blank: Tensor, label: Tensor) -> tuple[float, Tensor, Tensor]:
    """log p, and the share of each blank and label arc, from every path by itself."""
    frames, rows = blank.shape
    silent, spoken, total = torch.zeros_like(blank), torch.zeros_like(label), 0.0
    for places in itertools.combinations(range(frames + rows - 2), rows - 1):  # the last symbol is a blank
        t, u, log_prob, arcs = 0, 0, 0.0, []
        for step in range(frames + rows - 1):
            speaks = step in places
            arcs.append((spoken if speaks else silent, t, u))
            log_prob += float(label[t, u] if speaks else blank[t, u])
            t, u = (t, u + 1) if speaks else (t + 1, u)
        total += math.exp(log_prob)
        for values, t, u in arcs:
            values[t, u] += math.exp(log_prob)
    return math.log(total), silent / total, spoken / total


def test_equals_the_enumeration_of_all_paths():
    blank, label = draw(5, 6, 4)
    losses, found = transducer_loss(blank, label, LENGTHS, TOKENS)
    for i, (t, u) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist())):
        log_prob, silent, spoken = enumerate_paths(blank[i, :t, : u + 1], label[i, :t, :u])
        assert abs(float(losses[i]) + log_prob) < 1e-12 and found.log_prob[i] == -losses[i]
        assert (found.blank[i, :t, : u + 1] - silent).abs().max() < 1e-12
        assert torch.all((found.label[i, :t, :u] - spoken).abs() < 1e-12)
        assert found.blank[i].sum() == pytest.approx(t) and found.label[i].sum() == pytest.approx(u)


def test_two_frames_and_one_label_by_hand():
    """0.4 x 0.7 x 0.9 = 0.252 with the label in the first frame, 0.6 x 0.5 x 0.9 = 0.27 in the second."""
    blank = torch.tensor([[[0.6, 0.7], [0.5, 0.9]]], dtype=torch.float64).log()
    label = torch.tensor([[[0.4], [0.5]]], dtype=torch.float64).log()
    losses, found = transducer_loss(blank, label, torch.tensor([2]), torch.tensor([1]))
    assert losses.tolist() == pytest.approx([-math.log(0.522)], abs=1e-12)
    assert found.label[0, :, 0].tolist() == pytest.approx([0.252 / 0.522, 0.27 / 0.522])
    assert found.node[0].flatten().tolist() == pytest.approx([1, 0.252 / 0.522, 0.27 / 0.522, 1])


def test_every_frame_ends_once_every_label_comes_once_every_diagonal_is_crossed_once():
    blank, label = draw(5, 6, 4)
    _, found = transducer_loss(blank, label, LENGTHS, TOKENS)
    for i, (t, u) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist())):
        node = found.node[i, :t, : u + 1]
        torch.testing.assert_close(found.blank[i].sum(1)[:t], torch.ones(t, dtype=torch.float64))
        torch.testing.assert_close(found.label[i].sum(0)[:u], torch.ones(u, dtype=torch.float64))
        diagonal = torch.arange(t)[:, None] + torch.arange(u + 1)
        for d in range(t + u):
            assert float(node[diagonal == d].sum()) == pytest.approx(1)
        assert torch.all(node.sum(0) > 1 - 1e-9), "a row may be visited in several frames"


def test_gradients_are_the_occupations_and_pass_the_numerical_check():
    blank, label = (x.requires_grad_() for x in draw(5, 6, 4))
    losses, found = transducer_loss(blank, label, LENGTHS, TOKENS)
    scale = torch.arange(1.0, 6.0, dtype=torch.float64)
    (losses * scale).sum().backward()
    assert torch.equal(blank.grad, -scale[:, None, None] * found.blank)
    assert torch.equal(label.grad, -scale[:, None, None] * found.label)
    assert not found.blank.requires_grad and not found.node.requires_grad
    assert torch.autograd.gradcheck(lambda a, b: transducer_loss(a, b, LENGTHS, TOKENS)[0], (blank, label))


def test_gradient_of_logits_has_the_closed_form():
    """dL/dz_k = node x P_k - [k is the blank] blank - [k is the label] label."""
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64).requires_grad_()
    tokens = torch.tensor([[2, 4], [3, 1]])
    log_probs = logits.log_softmax(-1)
    label = log_probs[:, :, :-1].gather(3, tokens[:, None, :, None].expand(2, 4, 2, 1))[..., 0]
    lengths, sizes = torch.tensor([4, 3]), torch.tensor([2, 1])
    losses, found = transducer_loss(log_probs[..., 0], label, lengths, sizes)
    losses.sum().backward()
    wanted = found.node[..., None] * log_probs.detach().exp()
    wanted[..., 0] -= found.blank
    for i in range(2):
        for u in range(2):
            wanted[i, :, u, tokens[i, u]] -= found.label[i, :, u]
    torch.testing.assert_close(logits.grad, wanted, rtol=0, atol=1e-12)
    assert logits.grad.sum(-1).abs().max() < 1e-12


def test_padding_is_not_looked_at():
    blank, label = draw(5, 6, 4)
    whole = transducer_loss(blank, label, LENGTHS, TOKENS)
    for i, (t, u) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist())):
        alone = transducer_loss(
            blank[i : i + 1, :t, : u + 1], label[i : i + 1, :t, :u], LENGTHS[i : i + 1], TOKENS[i : i + 1]
        )
        torch.testing.assert_close(alone[0][0], whole[0][i], rtol=1e-14, atol=0)
        torch.testing.assert_close(alone[1].label[0], whole[1].label[i, :t, :u], rtol=0, atol=1e-13)
        blank[i, t:], blank[i, :, u + 1 :] = torch.nan, torch.inf
        label[i, t:], label[i, :, u:] = -torch.inf, torch.nan
    blank, label = blank.requires_grad_(), label.requires_grad_()
    again, found = transducer_loss(blank, label, LENGTHS, TOKENS)
    assert torch.equal(again, whole[0]) and torch.equal(found.blank, whole[1].blank)
    again.sum().backward()
    assert blank.grad.isfinite().all() and label.grad.isfinite().all()


def test_long_inputs_in_fp32_are_those_of_fp64():
    blank, label = draw(1, 2000, 300)
    lengths, sizes = torch.tensor([2000]), torch.tensor([300])
    exact, _ = transducer_loss(blank, label, lengths, sizes)
    losses, found = transducer_loss(blank.float(), label.float(), lengths, sizes)
    assert losses.dtype == found.label.dtype == torch.float32
    assert abs(float(losses) / float(exact) - 1) < 1e-5
    assert (found.label.sum(1) - 1).abs().max() < 1e-3 and (found.blank.sum(2) - 1).abs().max() < 1e-3


def test_a_target_that_no_path_can_have_costs_much_and_gives_finite_gradients():
    blank, label = draw(2, 3, 2)
    label[0] = -torch.inf
    blank, label = blank.requires_grad_(), label.requires_grad_()
    losses, _ = transducer_loss(blank, label, torch.tensor([3, 3]), torch.tensor([2, 2]))
    assert losses[0] > 1e20 and losses[1] < 100
    losses[1].backward()
    assert blank.grad[0].abs().max() == 0 and blank.grad.isfinite().all() and label.grad.isfinite().all()


def test_fastemit_multiplies_the_gradients_of_labels_alone():
    grads = []
    for fastemit in (0.0, 0.5):
        blank, label = (x.requires_grad_() for x in draw(5, 6, 4))
        losses, _ = transducer_loss(blank, label, LENGTHS, TOKENS, fastemit)
        losses.sum().backward()
        grads.append((losses, blank.grad, label.grad))
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][1], grads[1][1])
    torch.testing.assert_close(grads[1][2], 1.5 * grads[0][2])


@pytest.mark.parametrize(
    "lengths, sizes, message",
    [
        ([0, 3], [1, 1], "frames must be at least 1"),
        ([3, 4], [1, 1], "of 3 frames"),
        ([3, 3], [1, 3], "of 2 labels"),
        ([3], [1, 1], "as many lengths"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, sizes, message):
    with pytest.raises(ValueError, match=message):
        transducer_loss(*draw(2, 3, 2), torch.tensor(lengths), torch.tensor(sizes))


def test_half_precision_and_wrong_shapes_are_refused():
    blank, label = draw(2, 3, 2)
    with pytest.raises(TypeError, match="fp32 or fp64"):
        transducer_loss(blank.half(), label.half(), torch.tensor([3, 3]), torch.tensor([2, 2]))
    with pytest.raises(ValueError, match="label must be"):
        transducer_loss(blank, label[:, :, :1], torch.tensor([3, 3]), torch.tensor([1, 1]))
