"""A constant rate, after an optional linear warm-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from speechkit.config import check_range


@dataclass
class Config:
    """Constant rate."""

    name: str = "constant"
    """The schedule's kind."""
    warmup: int = 0
    """Updates of linear warm-up."""

    def __post_init__(self) -> None:
        check_range("warmup", self.warmup, 0)


def build(config: Config, updates: int) -> Callable[[int], float]:
    """The factor of each update; `updates` does not matter here."""
    return lambda update: min(1.0, (update + 1) / max(1, config.warmup))
