"""The transducer loss of given logits: its closed gradient, padding, and the same as from the networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechkit.losses import logits_transducer
from speechkit.losses.logits_transducer import logits_transducer_loss
from speechkit.losses.transducer import transducer_loss

B, T, U, V = 4, 20, 5, 7
LENGTHS, SIZES = torch.tensor([20, 4, 1, 17]), torch.tensor([5, 3, 2, 0])


def draw() -> tuple[Tensor, Tensor]:
    """Logits and targets."""
    torch.manual_seed(4)
    logits = torch.randn(B, T, U + 1, V, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(0, V - 1, (B, U))


def by_autograd(logits: Tensor, tokens: Tensor) -> Tensor:
    """The loss over the log-softmax of all; the blank is the last output."""
    log_probs = logits.log_softmax(-1)
    label = log_probs[:, :, :-1].gather(3, tokens[:, None, :, None].expand(B, T, U, 1))[..., 0]
    return transducer_loss(log_probs[..., -1], label, LENGTHS, SIZES)[0]


@pytest.mark.parametrize("together", [1, 100, 1 << 20])
def test_equals_the_loss_over_the_log_softmax(together, monkeypatch):
    monkeypatch.setattr(logits_transducer, "LOGITS", together)
    logits, tokens = draw()
    losses, found = logits_transducer_loss(logits, tokens, LENGTHS, SIZES, blank=V - 1)
    wanted = by_autograd(logits, tokens)
    torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-12)
    assert found.log_prob.tolist() == (-losses).tolist()
    scale = torch.rand(B, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((x * scale).sum(), logits)[0] for x in (losses, wanted))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradients_pass_the_numerical_check_and_add_up_to_nothing():
    logits, tokens = draw()
    logits = logits.detach()[:, :5].clone().requires_grad_()
    lengths = LENGTHS.clamp(max=5)

    def loss(values: Tensor) -> Tensor:
        return logits_transducer_loss(values, tokens, lengths, SIZES, blank=V - 1)[0]

    assert torch.autograd.gradcheck(loss, logits)
    loss(logits).sum().backward()
    assert logits.grad.sum(-1).abs().max() < 1e-12


def test_padding_is_not_looked_at_and_gets_no_gradient():
    logits, tokens = draw()
    wanted, _ = logits_transducer_loss(logits, tokens, LENGTHS, SIZES, blank=V - 1)
    with torch.no_grad():
        for i, (t, u) in enumerate(zip(LENGTHS.tolist(), SIZES.tolist())):
            logits[i, t:], logits[i, :, u + 1 :], tokens[i, u:] = torch.nan, torch.inf, V - 1
    losses, _ = logits_transducer_loss(logits, tokens, LENGTHS, SIZES, blank=V - 1)
    assert torch.equal(losses, wanted)
    losses.sum().backward()
    assert logits.grad.isfinite().all()
    for i, (t, u) in enumerate(zip(LENGTHS.tolist(), SIZES.tolist())):
        assert logits.grad[i, t:].abs().sum() == 0 and logits.grad[i, :, u + 1 :].abs().sum() == 0


def test_what_does_not_fit_is_refused():
    logits, tokens = draw()
    with pytest.raises(ValueError, match="tokens must be"):
        logits_transducer_loss(logits, tokens[:, :-1], LENGTHS, SIZES)
    tokens[1, 2] = V - 1
    with pytest.raises(ValueError, match="row 1 of the batch: the blank"):
        logits_transducer_loss(logits, tokens, LENGTHS, SIZES, blank=V - 1)
    with pytest.raises(TypeError, match="fp32 or fp64"):
        logits_transducer_loss(logits.half(), tokens.fill_(1), LENGTHS, SIZES)
