"""What searches need of a transducer, and nothing else of the model."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from speechkit.decoders.prediction import Memory


class Networks(Protocol):
    """Prediction and joint network; states and frames are projected to the joint network's width J."""

    def start(self, count: int) -> tuple[Tensor, Memory]:
        """`(N, J)` states after no label, and memories."""

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """`(N, J)` states after one more label each, `(N,)`, and memories."""

    def score(self, frames: Tensor, states: Tensor) -> Tensor:
        """`(..., V)` log-probabilities of what comes next at `(..., J)` frames and states."""
