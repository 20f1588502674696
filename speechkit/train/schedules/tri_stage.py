"""Warm-up, hold, exponential decay (SpecAugment, Park et al. 2019, sec. 3.2; wav2vec 2.0's fine-tuning)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from speechkit.config import check_range


@dataclass
class Config:
    """Three stages."""

    name: str = "tri_stage"
    """The schedule's kind."""
    warmup: float = 0.1
    """Share of all updates for the linear warm-up."""
    hold: float = 0.4
    """Share of all updates at the peak; the rest decays."""
    initial: float = 0.01
    """Factor of the first update."""
    final: float = 0.05
    """Factor at the end."""

    def __post_init__(self) -> None:
        check_range("warmup", self.warmup, 0, 1)
        check_range("hold", self.hold, 0, 1 - self.warmup)
        check_range("initial", self.initial, 0, 1)
        check_range("final", self.final, 1e-9, 1)


def build(config: Config, updates: int) -> Callable[[int], float]:
    """The factor of each of `updates` updates."""
    warmup = round(config.warmup * updates)
    decay_from = warmup + round(config.hold * updates)

    def factor(update: int) -> float:
        if update < warmup:
            return config.initial + (1 - config.initial) * update / warmup
        if update < decay_from:
            return 1.0
        share = min(1.0, (update - decay_from) / max(1, updates - decay_from))
        return math.exp(share * math.log(config.final))

    return factor
