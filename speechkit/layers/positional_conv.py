"""Positions from a wide grouped convolution over time (Baevski et al., 2020, section 2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from speechkit.layers.masks import Packing
from speechkit.layers.spectral_conv import spectral_convolution

WIDE = 64
"""Taps from which on the way through the frequencies is the faster one on a CPU."""


class PositionalConv(nn.Module):
    """What is added to the input of the first block: GELU of a convolution.

    Args:
        dim: D.
        kernel: width in frames.
        groups: a divisor of D.
        norm: "weight" (weight normalisation for each tap of the kernel; Salimans and Kingma, 2016) or
            "batch" (batch norm of the input).
    """

    def __init__(self, dim: int, kernel: int, groups: int, norm: str = "weight") -> None:
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel * dim)))
        nn.init.zeros_(conv.bias)
        self.batch_norm = nn.BatchNorm1d(dim) if norm == "batch" else None
        self.conv = weight_norm(conv, dim=2) if norm == "weight" else conv

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """`(N, D)` packed frames to `(N, D)`; utterances are bordered by zeros."""
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        if x.is_cuda:
            return packing.pack(self._convolve(packing.unpack(x)))
        if self.conv.kernel_size[0] >= WIDE:
            with torch.autocast("cpu", enabled=False):  # frequencies need all the bits of fp32
                frames = x.to(self.conv.bias.dtype)
                return F.gelu(spectral_convolution(frames, self.conv.weight, self.conv.bias, packing))
        chunks = x.split([count * width for count, width in packing.groups])
        rows = [chunk.unflatten(0, (count, -1)) for chunk, (count, _) in zip(chunks, packing.groups)]
        return torch.cat([self._convolve(row).flatten(0, 1) for row in rows])

    def _convolve(self, x: Tensor) -> Tensor:
        """`(B, T, D)` to the same shape; an even kernel gives one frame too many, the last."""
        return F.gelu(self.conv(x.transpose(1, 2))[..., : x.size(1)].transpose(1, 2))
