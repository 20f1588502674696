"""Fewer frames: the first stage of an encoder, padded features in, packed frames out.

Time is never padded, so a frame depends on real features only and
`output_lengths` is exact: an output frame exists where its whole window does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.layers.convolution import image_convolution
from speechkit.layers.masks import Packing, zero_padding
from speechkit.layers.stacked_convolution import SHAPES, StackedConvolution
from speechkit.layers.vgg import VggSubsampling

CONV2D_SHAPES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 1), (3, 1)),
    2: ((3, 2), (3, 1)),
    4: ((3, 2), (3, 2)),
    6: ((3, 2), (5, 3)),
    8: ((3, 2), (3, 2), (3, 2)),
}
"""Factor -> (kernel, stride) of each convolution, as in ESPnet."""


@dataclass
class Config:
    """Subsampling in time."""

    kind: Literal["conv2d", "conv1d", "stack", "vgg", "none"] = "conv2d"
    """`conv2d`: 3 x 3 convolutions over time and frequency; `stack`: neighbouring frames concatenated; `vgg`:
    two blocks of a VGG network (`factor: 4`); `none`: frames as they are (`factor: 1`); `conv1d`: over time
    alone, one convolution for `factor: 2`, two for 4, and for 6 one of frames stacked by three."""

    factor: Literal[1, 2, 4, 6, 8] = 4
    """Input frames for each output frame: 4 makes 40 ms of 10 ms frames."""

    channels: int | None = 32
    """Channels of the convolutions; null for the encoder's dimension, as ESPnet has it (slow on a CPU)."""

    def __post_init__(self) -> None:
        if self.channels is not None:
            check_range("channels", self.channels, 1)
        only = {"vgg": 4, "none": 1}.get(self.kind, self.factor)
        if self.factor != only:
            raise ValueError(f"factor={self.factor}: kind={self.kind} has factor={only}")
        if self.kind == "conv1d" and self.factor not in SHAPES:
            raise ValueError(f"factor={self.factor}: kind=conv1d has factors {', '.join(map(str, SHAPES))}")


class Conv2dSubsampling(nn.Module):
    """Convolutions over time and frequency with ReLU, then a linear layer.

    Args:
        input_dim: F.
        dim: D of the output.
        factor: see `CONV2D_SHAPES`.
        channels: of every convolution.

    Raises:
        InputError: so few features that no frequency is left.
    """

    def __init__(self, input_dim: int, dim: int, factor: int, channels: int) -> None:
        super().__init__()
        self.shapes = CONV2D_SHAPES[factor]
        sizes = [1] + [channels] * len(self.shapes)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel, stride) for a, b, (kernel, stride) in zip(sizes, sizes[1:], self.shapes)
        )
        self.bins = int(self.output_lengths(torch.tensor(input_dim, device="cpu")))
        if self.bins < 1:
            raise InputError(
                f"{input_dim} features are too few for conv2d subsampling by {factor}; use kind: stack"
            )
        self.out, self.output_dim = nn.Linear(self.bins * channels, dim), dim
        self.window, self.factor = _receptive_field(self.shapes)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames."""
        for kernel, stride in self.shapes:
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths.clamp(min=0)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Packing]:
        """`(B, T, F)` to packed `(N, D)` and where its utterances lie."""
        packing = Packing(self.output_lengths(lengths))
        if x.is_cuda:
            x = _cut(zero_padding(x, lengths), packing.width, self.window, self.factor)
            x = packing.pack(self._convolve(x))
        else:  # one by one: no padding is computed and the images stay in the cache, 2 times faster
            reach = [(size, (size - 1) * self.factor + self.window) for size in packing.sizes]
            rows = [self._convolve(row[None, :frames])[0] for row, (size, frames) in zip(x, reach) if size]
            x = torch.cat(rows) if rows else x.new_zeros(0, self.bins, self.out.in_features // self.bins)
        # (N, F, C) against weights whose order is (C, F): turning the weights moves fewer values
        weight = self.out.weight.unflatten(1, (-1, self.bins)).transpose(1, 2).flatten(1)
        return nn.functional.linear(x.flatten(1), weight, self.out.bias), packing

    def _convolve(self, x: Tensor) -> Tensor:
        """`(B, T, F)` to `(B, T', F', C)`."""
        x = x[..., None]
        for conv in self.convs:
            x = image_convolution(x, conv.weight, conv.bias, conv.stride[0]).relu()
        return x


class FrameStacking(nn.Module):
    """Windows of neighbouring frames through two linear layers: the cheapest on a CPU.

    Args:
        input_dim: F.
        dim: D of the output.
        factor: step between windows; a window holds 2 * factor - 1 frames.
    """

    def __init__(self, input_dim: int, dim: int, factor: int) -> None:
        super().__init__()
        self.window, self.factor, self.output_dim = 2 * factor - 1, factor, dim
        self.layers = nn.Sequential(nn.Linear(self.window * input_dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames."""
        windows = torch.div(lengths - self.window, self.factor, rounding_mode="floor") + 1
        return windows.clamp(min=0)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Packing]:
        """`(B, T, F)` to packed `(N, D)` and where its utterances lie."""
        packing = Packing(self.output_lengths(lengths))
        bins = x.size(2)
        x = _cut(x, packing.width, self.window, self.factor).contiguous()
        windows = x.flatten(1).unfold(1, self.window * bins, self.factor * bins)
        return self.layers(packing.pack(windows)), packing


class NoSubsampling(nn.Module):
    """Every frame, through a linear layer where a dimension is asked for.

    Args:
        input_dim: F.
        dim: D; None leaves frames as they are.
    """

    factor = 1

    def __init__(self, input_dim: int, dim: int | None) -> None:
        super().__init__()
        self.out = nn.Linear(input_dim, dim) if dim else nn.Identity()
        self.output_dim = dim or input_dim

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)`, the same."""
        return lengths

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Packing]:
        """`(B, T, F)` to packed `(N, D)` and where its utterances lie."""
        packing = Packing(lengths)
        return self.out(packing.pack(x)), packing


def _cut(x: Tensor, width: int, window: int, factor: int) -> Tensor:
    """Exactly the frames that `width` outputs see: cut, or lengthened by zeros that no output keeps."""
    frames = (max(width, 1) - 1) * factor + window
    if x.size(1) >= frames:
        return x[:, :frames]
    return nn.functional.pad(x, (0, 0, 0, frames - x.size(1)))


def _receptive_field(shapes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Input frames that one output sees, and input frames between outputs."""
    window, step = 1, 1
    for kernel, stride in shapes:
        window, step = window + (kernel - 1) * step, step * stride
    return window, step


def build(config: Config, input_dim: int, dim: int, linear: bool = True) -> nn.Module:
    """The configured subsampling.

    Args:
        config: see `Config`.
        input_dim: F.
        dim: D of its output.
        linear: False leaves out the last linear layer of `vgg` and `none`, whose `output_dim` is their own
            then.
    """
    if config.kind in ("stack", "conv1d"):
        kind = {"stack": FrameStacking, "conv1d": StackedConvolution}[config.kind]
        return kind(input_dim, dim, config.factor)
    if config.kind == "conv2d":
        return Conv2dSubsampling(input_dim, dim, config.factor, config.channels or dim)
    kind = {"vgg": VggSubsampling, "none": NoSubsampling}[config.kind]
    return kind(input_dim, dim if linear else None)
