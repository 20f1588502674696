"""Configuration of systems with an attention decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from speechkit.config import check_range, kind
from speechkit.decoders import DECODERS
from speechkit.models import ctc, embedding_transfer


@dataclass
class Weights:
    """Factors of the loss terms."""

    attention: float = 0.7
    """The cross entropy of the decoder."""

    ctc: float = 0.3
    """CTC on the encoder's frames; 0 builds no output layer for it."""

    def __post_init__(self) -> None:
        check_range("ctc", self.ctc, 0)
        if not self.attention > 0:
            raise ValueError(f"attention={self.attention} must be above 0; for CTC alone say name=ctc")


@dataclass
class Config(ctc.Config):
    """An attention decoder; the encoder's options are those of a CTC system."""

    name: str = "attention"
    """The model's kind."""

    decoder: Any = kind(DECODERS, "transformer")
    """The decoder, chosen by its `name`."""

    weights: Weights = field(default_factory=Weights)
    """Factors of the loss terms."""

    label_smoothing: float = 0.1
    """Share of a token's probability that the cross entropy spreads evenly over all tokens."""

    transfer: embedding_transfer.Config | None = None
    """Regression of a BERT's embeddings from the decoder's states beside recognition; null for none."""

    max_ratio: float = 1.0
    """Tokens for each of the encoder's frames, at most, when the dev set is recognised greedily."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        if not self.max_ratio > 0:
            raise ValueError(f"max_ratio={self.max_ratio} must be above 0")
        if self.transfer is not None and self.transfer.detach_encoder:
            raise ValueError("transfer.detach_encoder is for transducers; here states hold what was heard")
