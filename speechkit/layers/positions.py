"""Positions: rotary (ours), relative (Transformer-XL, for foreign checkpoints), sinusoidal absolute.

Each has `forward(x, packing) -> (x, table)`: the input of the first block and what every
self-attention gets as `positions`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from speechkit.layers.masks import Packing


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Vaswani et al. (2017), section 3.5: sine in even, cosine in odd dimensions.

    Args:
        positions: `(T,)` floating point.
        dim: D, even.

    Returns:
        `(T, D)`.
    """
    rates = torch.exp(
        torch.arange(0, dim, 2, dtype=positions.dtype, device=positions.device) * (-math.log(10000.0) / dim)
    )
    angles = positions[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Tables are computed in fp32 at least: bf16 cannot tell neighbouring positions apart."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class NoPositions(nn.Module):
    """The order of frames is known from convolutions alone."""

    def forward(self, x: Tensor, packing: Packing) -> tuple[Tensor, None]:
        """Returns `x` `(N, D)` and no table."""
        return x, None


def add_positions(x: Tensor, packing: Packing) -> Tensor:
    """Packed `(N, D)` frames and where they stand in their utterances, as sinusoids; D is even."""
    places = torch.arange(packing.width, dtype=_compute_dtype(x), device=x.device)
    return x + sinusoids(places, x.size(1)).to(x.dtype).index_select(0, packing.positions)


class SinusoidalPositions(nn.Module):
    """Adds absolute positions to the scaled input: `x * sqrt(D) + table` (Vaswani et al., 2017)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)

    def forward(self, x: Tensor, packing: Packing) -> tuple[Tensor, None]:
        """Returns `(N, D)` with positions added, and no table."""
        return add_positions(x * self.scale, packing), None


class RelativePositions(nn.Module):
    """Sinusoids of the distances T-1 ... -(T-1) for Transformer-XL attention (Dai et al., 2019).

    The input is scaled by sqrt(D) like with absolute positions (ESPnet does so, and its
    checkpoints expect it).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)

    def forward(self, x: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Returns the scaled `(N, D)` and the table `(2 * width - 1, D)`."""
        top = packing.width - 1
        distances = torch.arange(top, -top - 1, -1, dtype=_compute_dtype(x), device=x.device)
        return x * self.scale, sinusoids(distances, x.size(1)).to(x.dtype)


class RotaryPositions(nn.Module):
    """Rotates pairs of query and key dimensions by an angle that grows with time (Su et al., 2021).

    Args:
        head_dim: dimensions of one head, even.
        base: the slowest pair turns once in about `2 pi base` frames.
    """

    def __init__(self, head_dim: int, base: float = 10000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head dimension, got {head_dim}")
        self.head_dim, self.base = head_dim, base

    def forward(self, x: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Returns `x` `(N, D)` and the unit complex numbers `(N, 1, head_dim / 2)` to turn by."""
        dtype = _compute_dtype(x)
        steps = torch.arange(0, self.head_dim, 2, dtype=dtype, device=x.device) / self.head_dim
        angles = packing.positions.to(dtype)[:, None] * self.base**-steps
        return x, torch.polar(torch.ones_like(angles), angles)[:, None]


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turns neighbouring dimensions `(2i, 2i + 1)` as one complex number.

    Args:
        x: `(N, H, d)` queries or keys.
        turns: `(N, 1, d / 2)` complex, from `RotaryPositions`.

    Returns:
        `(N, H, d)` of the dtype of `x`; the product is computed in the precision of `turns`.
    """
    pairs = torch.view_as_complex(x.to(turns.real.dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


POSITIONS = ("rotary", "relative", "sinusoidal", "none")


def build_positions(name: str, dim: int, heads: int) -> nn.Module:
    """The module for a configured name."""
    if name == "rotary":
        return RotaryPositions(dim // heads)
    return {"relative": RelativePositions, "sinusoidal": SinusoidalPositions}.get(
        name, lambda _: NoPositions()
    )(dim)
