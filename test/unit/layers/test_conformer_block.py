"""Parts of the blocks against PyTorch's own modules and the equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from speechkit.layers.conformer_block import ConvolutionModule, depthwise
from speechkit.layers.dropout import FrameDropout, dropout
from speechkit.layers.masks import Packing
from speechkit.layers.norms import FrameNorm

LENGTHS = [6, 2, 9, 6]
PACKING = Packing(torch.tensor(LENGTHS))


def test_depthwise_convolution_equals_conv1d():
    conv = nn.Conv1d(6, 6, 5, padding=2, groups=6).double()
    x = torch.randn(3, 11, 6, dtype=torch.float64, requires_grad=True)
    ours, theirs = depthwise(x, conv), conv(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    (a,) = torch.autograd.grad(ours.sin().sum(), x, retain_graph=True)
    (b,) = torch.autograd.grad(theirs.sin().sum(), x)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("norm", ["layer", "batch", "group"])
def test_convolution_module_equals_plain_pytorch_on_one_utterance(norm):
    module = ConvolutionModule(6, 5, norm).double().eval()
    x = torch.randn(9, 6, dtype=torch.float64)
    y = F.glu(module.expand(x), dim=-1).t()[None]
    y = module.depthwise(y)
    inner = module.norm.norm
    y = inner(y.transpose(1, 2)) if norm == "layer" else inner(y).transpose(1, 2)
    expected = module.project(F.silu(y[0]))
    torch.testing.assert_close(module(x, Packing(torch.tensor([9]))), expected)


def test_batch_norm_takes_statistics_of_valid_frames_alone():
    x = torch.randn(PACKING.total, 4)
    norm, plain = FrameNorm("batch", 4).train(), nn.BatchNorm1d(4).train()
    torch.testing.assert_close(norm(x, PACKING), plain(x))
    torch.testing.assert_close(norm.norm.running_mean, 0.1 * x.mean(0))
    assert norm(x[:1], Packing(torch.tensor([1]))).isfinite().all()


def test_group_norm_takes_statistics_of_each_utterance():
    norm = FrameNorm("group", 6, groups=3)
    x = torch.randn(PACKING.total, 6)
    for piece, out in zip(x.split(LENGTHS), norm(x, PACKING).split(LENGTHS)):
        torch.testing.assert_close(out, norm.norm(piece.t()[None])[0].t(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_dropout_keeps_the_mean_and_shares_its_mask_when_asked(shared):
    packing = Packing(torch.tensor([50, 70, 60]))
    dropout = FrameDropout(0.25, shared)
    x = torch.ones(180, 200)
    out = dropout.train()(x, packing)
    assert out.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert shared or (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    rows = [bool((piece == piece[0]).all()) for piece in out.split([50, 70, 60])]
    assert rows == [shared] * 3
    assert not torch.equal(out[0], out[-1])
    assert dropout.eval()(x, packing) is x


@pytest.mark.parametrize(("rate", "size"), [(0.1, 40001), (0.5, 40002), (0.9, 40003), (0.003, 400000)])
def test_dropout_rate_independence_and_gradient(rate, size):
    x = torch.randn(size, requires_grad=True)
    out = dropout(x, rate)
    kept = (out != 0).double()
    assert 1 - kept.mean().item() == pytest.approx(rate, abs=4 * (rate / size) ** 0.5)
    for shift in (1, 2, 3, 4):  # four values share one draw of 64 bits: they must not be related
        both = (kept[shift:] * kept[:-shift]).mean().item()
        assert both == pytest.approx((1 - rate) ** 2, abs=5 * (rate / size) ** 0.5)
    torch.testing.assert_close(out, x * kept.float() / (1 - rate), rtol=1e-3, atol=0)
    out.sum().backward()
    torch.testing.assert_close(x.grad, kept.float() / (1 - rate), rtol=1e-3, atol=0)
