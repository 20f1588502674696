"""Configuration of transducers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from speechkit.config import check_range, kind
from speechkit.decoders import joint
from speechkit.decoders.prediction import PREDICTIONS
from speechkit.models import ctc, embedding_transfer


@dataclass
class Weights:
    """Factors of the loss terms."""

    transducer: float = 1.0
    """The transducer's negative log-probability."""

    ctc: float = 0.0
    """CTC on the encoder's frames, which helps it to begin; 0 builds no output layer for it."""

    simple: float = 0.5
    """With `joint.pruned`: the loss of the cheap joint network that says where labels are considered."""

    def __post_init__(self) -> None:
        check_range("transducer", self.transducer, 0)
        check_range("simple", self.simple, 0)
        check_range("ctc", self.ctc, 0)


@dataclass
class Config(ctc.Config):
    """A transducer; the encoder's options are those of a CTC system."""

    name: str = "transducer"
    """The model's kind."""

    prediction: Any = kind(PREDICTIONS, "lstm")
    """The prediction network, chosen by its `name`."""

    joint: joint.Config = field(default_factory=joint.Config)
    """The joint network."""

    weights: Weights = field(default_factory=Weights)
    """Factors of the loss terms."""

    transfer: embedding_transfer.Config | None = None
    """Regression of a BERT's embeddings beside recognition; null for none."""

    fastemit: float = 0.0
    """Lambda of FastEmit (Yu et al., 2021): how much more than blanks labels are pushed, for earlier ones."""

    max_symbols: int = 5
    """Labels in one frame, at most, when the dev set is recognised greedily."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("fastemit", self.fastemit, 0)
        check_range("max_symbols", self.max_symbols, 1)
