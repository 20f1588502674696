"""Our transducer loss is that of warp-rnnt (tools/setup.sh warp-rnnt, on a GPU) and of warprnnt_numba."""

from __future__ import annotations

import pytest
import torch

from speechkit.losses.logits_transducer import logits_transducer_loss
from speechkit.losses.transducer import transducer_loss
from speechkit.losses.transducer_lattice import occupations

B, T, U, V = 4, 30, 8, 11
LENGTHS, SIZES = torch.tensor([30, 17, 1, 9]), torch.tensor([8, 5, 2, 1])


def draw():
    """Logits and targets."""
    torch.manual_seed(2)
    return torch.randn(B, T, U + 1, V), torch.randint(1, V, (B, U))


@pytest.mark.parametrize("fastemit", [0.0, 0.3])
def test_warp_rnnt(fastemit):
    pytest.importorskip("warp_rnnt", reason="warp-rnnt is not installed")
    if not torch.cuda.is_available():
        pytest.skip("warp-rnnt needs a GPU")
    from warp_rnnt import rnnt_loss

    from speechkit.integrations import warp_rnnt

    logits, tokens = draw()
    inputs = [logits.cuda().requires_grad_() for _ in range(3)]
    sizes = [x.int().cuda() for x in (tokens, LENGTHS, SIZES)]
    theirs = rnnt_loss(inputs[0].log_softmax(-1), *sizes, reduction="none", fastemit_lambda=fastemit)
    losses = [theirs]
    for values, lattice in zip(inputs[1:], (occupations, warp_rnnt.choose("warp_rnnt"))):
        options = {"fastemit": fastemit, "lattice": lattice}
        losses.append(logits_transducer_loss(values, tokens.cuda(), LENGTHS, SIZES, **options)[0])
    for ours in losses[1:]:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    wanted, *found = (torch.autograd.grad(x.sum(), y)[0] for x, y in zip(losses, inputs))
    for gradient in found:
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_warp_rnnt_says_where_the_paths_lie():
    pytest.importorskip("warp_rnnt", reason="warp-rnnt is not installed")
    if not torch.cuda.is_available():
        pytest.skip("warp-rnnt needs a GPU")
    from speechkit.integrations import warp_rnnt

    logits, _ = draw()
    log_probs = logits.log_softmax(-1).cuda()
    parts = log_probs[..., 0].contiguous(), log_probs[:, :, :-1, 1].contiguous()
    ours, theirs = (
        transducer_loss(*parts, LENGTHS, SIZES, lattice=lattice)[1]
        for lattice in (occupations, warp_rnnt.choose("warp_rnnt"))
    )
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fastemit", [0.0, 0.3])
def test_warprnnt_numba(fastemit):
    numba = pytest.importorskip("warprnnt_numba", reason="warprnnt_numba is not installed")
    logits, tokens = draw()
    inputs = [logits.clone().requires_grad_() for _ in range(2)]
    ours, _ = logits_transducer_loss(inputs[0], tokens, LENGTHS, SIZES, fastemit=fastemit)
    loss = numba.RNNTLossNumba(blank=0, reduction="none", fastemit_lambda=fastemit)
    theirs = loss(inputs[1], tokens.int(), LENGTHS.int(), SIZES.int())
    if not fastemit:  # theirs adds a multiple of the labels' part to the value, which has no gradient
        torch.testing.assert_close(ours, theirs.view(-1), rtol=1e-5, atol=1e-5)
    ours.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-5)
