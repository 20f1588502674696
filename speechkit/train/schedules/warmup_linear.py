"""Linear warm-up, then linear decay to nothing at the last update (BERT's schedule)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from speechkit.config import check_range


@dataclass
class Config:
    """Triangle."""

    name: str = "warmup_linear"
    """The schedule's kind."""
    warmup: float = 0.1
    """Share of all updates spent warming up."""

    def __post_init__(self) -> None:
        check_range("warmup", self.warmup, 0, 1)


def build(config: Config, updates: int) -> Callable[[int], float]:
    """The factor of each of `updates` updates; never quite zero."""
    warmup = round(config.warmup * updates)

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        return max(0, updates - update) / max(1, updates - warmup)

    return factor
