"""Fewer frames by convolutions over time, of stacked frames (the front end of AV-BERT's recognisers)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.layers.masks import Packing, zero_padding

SHAPES: dict[int, tuple[int, int]] = {2: (1, 1), 4: (1, 2), 6: (3, 1)}
"""Factor -> frames that are stacked without overlap, and convolutions of kernel 3 and stride 2 after that."""


class StackedConvolution(nn.Module):
    """Frames are stacked, then go through convolutions with ReLU, then through a linear layer.

    Time is not padded: a frame comes out where its whole window is.

    Args:
        input_dim: F.
        dim: D of the output.
        factor: see `SHAPES`; 6 makes 60 ms of 10 ms frames, 4 makes 40 ms.
    """

    def __init__(self, input_dim: int, dim: int, factor: int) -> None:
        super().__init__()
        self.stacked, count = SHAPES[factor]
        self.factor, self.output_dim = factor, dim
        sizes = [self.stacked * input_dim] + [dim] * count
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3, stride=2) for a, b in zip(sizes, sizes[1:]))
        self.out = nn.Linear(dim, dim)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames."""
        lengths = torch.div(lengths, self.stacked, rounding_mode="floor")
        for _ in self.convs:
            lengths = torch.div(lengths - 3, 2, rounding_mode="floor") + 1
        return lengths.clamp(min=0)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Packing]:
        """`(B, T, F)` to packed `(N, D)` and where its utterances lie."""
        packing = Packing(self.output_lengths(lengths))
        if packing.total == 0:
            return x.new_zeros(0, self.output_dim), packing
        x = zero_padding(x, lengths)
        count = x.size(1) // self.stacked
        x = x[:, : count * self.stacked].reshape(len(x), count, -1).transpose(1, 2)
        for conv in self.convs:
            x = conv(x).relu()
        return self.out(packing.pack(x.transpose(1, 2))), packing
