"""The transducer loss without the logits of all nodes: equal to the one with them, for any piece size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechkit.losses.joint_transducer import joint_transducer_loss
from speechkit.losses.transducer import transducer_loss

B, T, U, J, V = 4, 7, 5, 6, 9
LENGTHS, SIZES = torch.tensor([7, 4, 1, 6]), torch.tensor([5, 3, 2, 0])


def draw(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """The networks' states, the output layer, and targets."""
    torch.manual_seed(4)
    parts = [torch.randn(shape, dtype=dtype) for shape in ((B, T, J), (B, U + 1, J), (V, J), (V,))]
    return [part.requires_grad_() for part in parts], torch.randint(1, V, (B, U))


def naive(parts: list[Tensor], tokens: Tensor, combine: str, blank: int = 0, fastemit: float = 0.0) -> Tensor:
    """The same with all logits at once, by autograd."""
    frames, states, weight, bias = parts
    f, g = frames[:, :, None], states[:, None]
    log_probs = ((f + g if combine == "add" else f * g).tanh() @ weight.t() + bias).log_softmax(-1)
    label = log_probs[:, :, :-1].gather(3, tokens[:, None, :, None].expand(B, T, U, 1))[..., 0]
    label.register_hook(lambda gradient: (1 + fastemit) * gradient)
    return transducer_loss(log_probs[..., blank], label, LENGTHS, SIZES)[0]


@pytest.mark.parametrize("combine", ["add", "multiply"])
@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("logits", [1, 40, 100, 1 << 20])
def test_loss_and_gradients_equal_those_over_all_logits(combine, kept, logits):
    parts, tokens = draw()
    scale = torch.rand(B, dtype=torch.float64)
    sizes = {"logits": logits, "kept": kept}
    losses, found = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES, combine=combine, **sizes)
    wanted = naive(parts, tokens, combine)
    torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-12)
    assert found.log_prob.tolist() == (-losses).tolist()
    ours, theirs = (torch.autograd.grad((x * scale).sum(), parts) for x in (losses, wanted))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_gradients_pass_the_numerical_check(kept):
    parts, tokens = draw()

    def loss(*parts: Tensor) -> Tensor:
        return joint_transducer_loss(*parts, tokens, LENGTHS, SIZES, logits=100, kept=kept)[0]

    assert torch.autograd.gradcheck(loss, parts)


@pytest.mark.parametrize("kept", [0, 1 << 24])
def test_nodes_that_no_path_visits_change_nothing_beyond_rounding(kept):
    """Long and peaked, as of a network that has learnt: most of the lattice is left out."""
    torch.manual_seed(6)
    frames, rows, lengths, sizes = 200, 31, torch.tensor([200, 150]), torch.tensor([30, 25])
    shapes = ((2, frames, J), (2, rows, J), (V, J), (V,))
    parts = [3 * torch.randn(shape) for shape in shapes]
    tokens = torch.randint(1, V, (2, rows - 1))
    grads = []
    for dtype in (torch.float32, torch.float64):
        inputs = [part.to(dtype).requires_grad_() for part in parts]
        losses, found = joint_transducer_loss(*inputs, tokens, lengths, sizes, kept=kept)
        grads.append(torch.autograd.grad(losses.sum(), inputs))
    assert ((found.node > 0) & (found.node < 1e-7)).sum() > found.node.numel() / 2
    for a, b in zip(*grads):
        assert (a - b).abs().max() < 2e-6 * b.abs().max()


def test_padding_is_not_looked_at_and_gets_no_gradient():
    parts, tokens = draw()
    wanted, _ = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)
    with torch.no_grad():
        for i, (t, u) in enumerate(zip(LENGTHS.tolist(), SIZES.tolist())):
            parts[0][i, t:], parts[1][i, u + 1 :], tokens[i, u:] = torch.nan, torch.inf, 0
    losses, _ = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)
    assert torch.equal(losses, wanted)
    losses.sum().backward()
    for i, (t, u) in enumerate(zip(LENGTHS.tolist(), SIZES.tolist())):
        assert parts[0].grad[i, t:].abs().sum() == 0 and parts[1].grad[i, u + 1 :].abs().sum() == 0
    assert all(part.grad.isfinite().all() for part in parts)


def test_the_blank_may_have_any_id():
    parts, tokens = draw()
    tokens = tokens - 1
    losses, _ = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES, blank=V - 1)
    torch.testing.assert_close(losses, naive(parts, tokens, "add", V - 1), rtol=0, atol=1e-12)


def test_bf16_products_leave_the_lattice_in_fp32():
    parts, tokens = draw(torch.float32)
    exact, _ = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        losses, found = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)
    assert losses.dtype == found.blank.dtype == torch.float32
    assert 0 < (losses / exact - 1).abs().max() < 0.02
    losses.sum().backward()
    assert all(part.grad.dtype == torch.float32 and part.grad.isfinite().all() for part in parts)


def test_gradients_of_bf16_states_are_added_up_in_fp32():
    """A state meets all frames: added up in bf16, part by part, its gradient is three times as far off."""
    torch.manual_seed(0)
    frames, states = torch.randn(1, 1000, J), torch.randn(1, U + 1, J)
    sides, (_, _, weight, bias) = (frames.bfloat16(), states.bfloat16()), draw(torch.float32)[0]
    tokens, sizes = torch.randint(1, V, (1, U)), (torch.tensor([1000]), torch.tensor([U]))
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        inputs = [side.to(dtype).requires_grad_() for side in sides]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            layer = (weight.to(dtype), bias.to(dtype)) if dtype == torch.float64 else (weight, bias)
            losses, _ = joint_transducer_loss(*inputs, *layer, tokens, *sizes, logits=50 * V, kept=0)
        found.append(torch.autograd.grad(losses.sum(), inputs)[1].double())
    assert (found[0] - found[1]).norm() < 4e-3 * found[1].norm()


def test_fastemit_multiplies_what_reaches_the_labels():
    parts, tokens = draw()
    losses, _ = joint_transducer_loss(*parts, tokens, LENGTHS, SIZES, fastemit=0.3)
    wanted = naive(parts, tokens, "add", fastemit=0.3)
    assert torch.equal(losses, joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)[0])
    for a, b in zip(*(torch.autograd.grad(x.sum(), parts) for x in (losses, wanted))):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_parts_that_do_not_fit_each_other_are_refused():
    parts, tokens = draw()
    narrow = [parts[0][..., :-1], *parts[1:]]
    for inputs, target in ((narrow, tokens), (parts, tokens[:, :-1]), (parts, tokens[:-1])):
        with pytest.raises(ValueError, match="do not fit each other"):
            joint_transducer_loss(*inputs, target, LENGTHS, SIZES)
    with pytest.raises(ValueError, match="of 7 frames"):
        joint_transducer_loss(*parts, tokens, LENGTHS + 1, SIZES)


def test_a_target_with_the_blank_is_refused():
    parts, tokens = draw()
    tokens[1, 2] = 0
    with pytest.raises(ValueError, match="row 1 of the batch: the blank"):
        joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)
    tokens[1, 2], tokens[1, 3] = 1, 0  # beyond its length
    joint_transducer_loss(*parts, tokens, LENGTHS, SIZES)
