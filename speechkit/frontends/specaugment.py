"""SpecAugment (Park et al., 2019), with the adaptive masks of Park et al. (2020).

Every utterance draws from a generator seeded with its key, a fixed number of values: it is
augmented the same in any batch, at any place, and again after a resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechkit.config import check_range

SALT = 0x5BEC
"""Keeps these draws apart from others that are seeded with the same key."""


@dataclass
class Config:
    """Masks and time warp; a width is drawn evenly from 0 to its maximum, a place from where it fits."""

    freq_masks: int = 2
    """Frequency masks in each utterance."""

    freq_width: int = 27
    """Widest frequency mask in feature bins (F of the paper)."""

    time_masks: int = 2
    """Time masks in each utterance, whatever its length."""

    time_masks_per_frame: float = 0.0
    """Time masks added for each frame of the utterance, rounded down (p_M of the 2020 paper: 0.04)."""

    max_time_masks: int = 20
    """Most time masks in an utterance."""

    time_width: int = 100
    """Widest time mask in frames (T of the paper)."""

    time_ratio: float = 0.1
    """Widest time mask as a part of the utterance (p of 2019, p_S of 2020); the smaller of the two holds."""

    time_warp: int = 0
    """How far, in frames, a point of the utterance moves (W of the paper, 80 there); 0 for none."""

    def __post_init__(self) -> None:
        for name in ("freq_masks", "freq_width", "time_masks", "time_width", "time_warp"):
            check_range(name, getattr(self, name), 0)
        check_range("max_time_masks", self.max_time_masks, self.time_masks, 1000)
        check_range("time_masks_per_frame", self.time_masks_per_frame, 0, 1)
        check_range("time_ratio", self.time_ratio, 0, 1)


class SpecAugment(nn.Module):
    """Masks, and warps on request, features whose mean is 0 (masked values become 0)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor, lengths: Tensor, keys: Tensor) -> Tensor:
        """Augments; nothing is done in evaluation.

        Args:
            x: `(B, T, F)` normalised features.
            lengths: `(B,)` frames.
            keys: `(B,)` int64 on the CPU, see `speechkit.data.batch.Batch`.

        Returns:
            `(B, T, F)`.
        """
        if not self.training:
            return x
        config = self.config
        most = config.max_time_masks if config.time_masks_per_frame else config.time_masks
        draws = uniforms(keys, 2 + 2 * config.freq_masks + 2 * most).to(lengths.device)
        warp, freq, time = draws.split([2, 2 * config.freq_masks, 2 * most], dim=1)
        if config.time_warp:
            x = time_warp(x, lengths, warp, config.time_warp)
        bins = torch.full_like(lengths, x.size(2))
        widest = bins.clamp(max=config.freq_width)[:, None]
        hidden = spans(*freq.chunk(2, dim=1), widest, bins, x.size(2))[:, None, :]
        counts = (config.time_masks + lengths * config.time_masks_per_frame).floor().clamp(max=most)
        widest = (lengths * config.time_ratio).floor().clamp(max=config.time_width).long()[:, None]
        widest = widest * (torch.arange(most, device=lengths.device) < counts[:, None])
        hidden = hidden | spans(*time.chunk(2, dim=1), widest, lengths, x.size(1))[:, :, None]
        return x.masked_fill(hidden, 0)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """`(B, count)` float64 in [0, 1), each row from a generator of its own."""
    generator = torch.Generator()
    rows = [
        torch.rand(count, generator=generator.manual_seed(key ^ SALT), dtype=torch.float64)
        for key in keys.tolist()
    ]
    return torch.stack(rows) if rows else torch.empty(0, count, dtype=torch.float64)


def spans(width: Tensor, place: Tensor, widest: Tensor, length: Tensor, size: int) -> Tensor:
    """True inside any of M random spans.

    Args:
        width: `(B, M)` uniform draws for the widths.
        place: `(B, M)` uniform draws for the starts.
        widest: `(B, M)` or `(B, 1)` largest width; 0 for no span.
        length: `(B,)` valid positions.
        size: number of columns of the result.

    Returns:
        `(B, size)` bool.
    """
    widths = (width * (widest + 1)).floor()
    starts = (place * (length[:, None] - widths + 1)).floor()
    columns = torch.arange(size, device=length.device)[:, None]
    inside = (columns >= starts[:, None]) & (columns < (starts + widths)[:, None])
    return inside.any(dim=2)


def time_warp(x: Tensor, lengths: Tensor, draws: Tensor, far: int) -> Tensor:
    """Moves one inner point of each utterance in time and stretches both sides linearly.

    Args:
        x: `(B, T, F)`.
        lengths: `(B,)`; an utterance of at most `2 * far + 1` frames stays as it is.
        draws: `(B, 2)` uniform draws for the point and its move.
        far: W, largest move in frames.

    Returns:
        `(B, T, F)`; the first and last frame of an utterance stay where they were.
    """
    last = (lengths - 1).to(draws.dtype)
    point = far + draws[:, 0] * (last - 2 * far)
    target = point + (2 * draws[:, 1] - 1) * (far - 1)
    short = last <= 2 * far
    point, target = torch.where(short, 1.0, point)[:, None], torch.where(short, 1.0, target)[:, None]
    frames = torch.arange(x.size(1), device=x.device, dtype=draws.dtype)[None]
    last = last[:, None]
    right = point + (frames - target) * (last - point) / (last - target).clamp(min=1e-6)
    source = torch.where(frames <= target, frames * point / target, right)
    source = torch.where(short[:, None] | (frames > last), frames, source)
    low = source.floor().clamp(0, x.size(1) - 1)
    part = (source - low).to(x.dtype)[:, :, None]
    low = low.long()[:, :, None].expand_as(x)
    high = (low + 1).clamp(max=x.size(1) - 1)
    return torch.lerp(x.gather(1, low), x.gather(1, high), part)
