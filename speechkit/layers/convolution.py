"""Convolutions over time and frequency of tensors whose channels lie last in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def image_convolution(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """A square convolution without padding.

    Args:
        x: `(B, T, F, C)`.
        weight: `(C', C, k, k)`, as `nn.Conv2d` has it.
        bias: `(C',)`.
        stride: in time and frequency.

    Returns:
        `(B, T', F', C')`.
    """
    if x.size(3) == 1:  # one product with the k * k values under each output
        patches = _patches(x, weight.size(2), stride)
        return F.linear(patches.flatten(3), weight.flatten(1), bias)
    if x.is_cuda or torch.is_autocast_enabled("cpu"):
        return _convolve(x, weight, bias, stride)
    return _ImageConvolution.apply(x, weight, bias, stride)


def _patches(x: Tensor, kernel: int, stride: int) -> Tensor:
    """`(B, T, F, C)` to a view `(B, T', F', C, k, k)` of what lies under each output."""
    return x.unfold(1, kernel, stride).unfold(2, kernel, stride)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    weight = weight.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride).permute(0, 2, 3, 1)


class _ImageConvolution(torch.autograd.Function):
    """oneDNN's convolution, with the gradient of the weights as one matrix product: a third faster in all."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return _convolve(x, weight, bias, stride)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        outputs, inputs, kernel, _ = weight.shape
        to_x = None
        if ctx.needs_input_grad[0]:
            images = gradient.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
            kernels = weight.contiguous(memory_format=torch.channels_last)
            geometry = (
                [ctx.stride] * 2,
                [0, 0],
                [1, 1],
                False,
                [0, 0],
                1,
            )  # stride, padding, dilation ... groups
            mask = [True, False, False]
            to_x = torch.ops.aten.convolution_backward(*images, kernels, None, *geometry, mask)[0].permute(
                0, 2, 3, 1
            )
        rows = gradient.reshape(-1, outputs)
        columns = (
            _patches(x, kernel, ctx.stride).permute(0, 1, 2, 4, 5, 3).reshape(-1, kernel * kernel * inputs)
        )
        to_weight = (rows.t() @ columns).view(outputs, kernel, kernel, inputs).permute(0, 3, 1, 2)
        return to_x, to_weight, rows.sum(0), None
