"""Warm-up, hold, decay (SpecAugment, Park et al. 2019, sec. 3.2; the fine-tuning of wav2vec 2.0 and XLSR)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from speechkit.config import check_range


@dataclass
class Config:
    """Three stages.

    wav2vec 2.0's fine-tuning is the default; XLSR's is `decay: linear`; HuBERT's 10 h (8 k updates of
    warm-up, no hold, 72 k of decay, stopped after 25 k) is `warmup: 0.32, hold: 0, end: 3.2`.
    """

    name: str = "tri_stage"
    """The schedule's kind."""
    warmup: float = 0.1
    """Share of all updates for the linear warm-up."""
    hold: float = 0.4
    """Share of all updates at the peak; the rest decays."""
    decay: Literal["exponential", "linear"] = "exponential"
    """How the rate falls to `final`."""
    initial: float = 0.01
    """Factor of the first update."""
    final: float = 0.05
    """Factor at the end; 0 only for a linear decay."""
    end: float = 1.0
    """Where `final` is reached, as a share of all updates; above 1 the run stops on the way down."""

    def __post_init__(self) -> None:
        check_range("warmup", self.warmup, 0, 1)
        check_range("hold", self.hold, 0, 1 - self.warmup)
        check_range("initial", self.initial, 0, 1)
        check_range("final", self.final, 1e-9 if self.decay == "exponential" else 0, 1)
        check_range("end", self.end, self.warmup + self.hold)


def build(config: Config, updates: int) -> Callable[[int], float]:
    """The factor of each of `updates` updates."""
    warmup = round(config.warmup * updates)
    decay_from = warmup + round(config.hold * updates)
    length = max(1, round(config.end * updates) - decay_from)

    def factor(update: int) -> float:
        if update < warmup:
            return config.initial + (1 - config.initial) * update / warmup
        share = min(1.0, max(0, update - decay_from) / length)
        return config.final**share if config.decay == "exponential" else 1 - share * (1 - config.final)

    return factor
