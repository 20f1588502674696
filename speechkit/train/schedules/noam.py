"""Linear warm-up, then decay with the inverse square root of the update (Vaswani et al. 2017, sec. 5.3).

Differs: the peak is the configured rate itself, not `model_dim ** -0.5 * warmup ** -0.5`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from speechkit.config import check_range


@dataclass
class Config:
    """Inverse square root."""

    name: str = "noam"
    """The schedule's kind."""
    warmup: int = 4000
    """Updates of linear warm-up; the peak is there."""

    def __post_init__(self) -> None:
        check_range("warmup", self.warmup, 1)


def build(config: Config, updates: int) -> Callable[[int], float]:
    """The factor of each update; `updates` does not matter here."""
    peak = config.warmup

    def factor(update: int) -> float:
        n = update + 1
        return min(n / peak, (peak / n) ** 0.5)

    return factor
