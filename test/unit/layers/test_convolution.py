"""Convolutions with channels last against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from speechkit.layers.convolution import image_convolution


@pytest.mark.parametrize(("channels", "kernel", "stride"), [(1, 3, 2), (4, 3, 2), (4, 5, 3), (3, 3, 1)])
def test_equals_conv2d_forwards_and_backwards(channels, kernel, stride):
    x = torch.randn(2, 14, 11, channels, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, channels, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    ours = image_convolution(x, weight, bias, stride)
    theirs = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, theirs)
    inputs = x, weight, bias
    for a, b in zip(
        torch.autograd.grad(ours.sin().sum(), inputs), torch.autograd.grad(theirs.sin().sum(), inputs)
    ):
        torch.testing.assert_close(a, b)


def test_works_under_autocast():
    x, weight = torch.randn(1, 9, 9, 4), torch.randn(6, 4, 3, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = image_convolution(x, weight, torch.zeros(6), 2)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad.dtype == torch.float32
