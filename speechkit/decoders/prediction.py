"""Prediction networks of transducers: the labels so far in, a state out. Kinds, and what each offers.

Row u of the output has read u labels; row 0 none. The blank is never read: at the beginning there is a vector
of zeros in its place.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

PREDICTIONS = {
    "lstm": "speechkit.decoders.prediction_lstm",
    "stateless": "speechkit.decoders.prediction_stateless",
    "transformer": "speechkit.decoders.prediction_transformer",
}
"""Kind name -> module with a `Config` dataclass and `build(config, vocab_size) -> nn.Module`."""

Memory = tuple[Tensor, ...]
"""What a network remembers of each of N label sequences; the first axis of every tensor is N."""


class Prediction(Protocol):
    """What the transducer and its searches need of a prediction network."""

    output_dim: int
    """D of its output."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """`(B, U)` labels to `(B, U + 1, D)`; what lies beyond a length changes nothing before it."""

    def start(self, count: int) -> tuple[Tensor, Memory]:
        """`(N, D)` after no label, and the memory of it."""

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """`(N, D)` after one more label each, `(N,)`, and the new memory."""
