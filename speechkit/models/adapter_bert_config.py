"""Settings of Adapter-BERT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechkit.config import check_range
from speechkit.encoders import bert
from speechkit.fusion import adapter_bert
from speechkit.fusion.conditional_mlm import Noise
from speechkit.models import ctc
from speechkit.search import mask_predict, two_vocabularies


@dataclass
class Weights:
    """Weights of the loss terms."""

    ctc: float = 0.5
    """CTC on the speech encoder, which tells the length."""

    cmlm: float = 1.0
    """The conditional masked language model."""

    length: float = 0.1
    """The length predictor, where there is one (AB-Net's weight)."""

    text: float = 0.0
    """The masked language model on batches of text alone. 0 learns from speech alone, as published, and takes
    no text sets; any other weight needs some."""

    def __post_init__(self) -> None:
        for name in ("ctc", "cmlm", "length", "text"):
            check_range(name, getattr(self, name), 0)


@dataclass
class Config(ctc.Config):
    """A speech encoder that BERT reads through adapters."""

    name: str = "adapter_bert"
    """The model's kind."""

    bert: bert.Config = field(default_factory=bert.Config)
    """The linguistic encoder."""

    units: two_vocabularies.Units = "shared"
    """How what CTC says becomes BERT's pieces, see there: `shared`, `retokenised` or `words`."""

    adapters: adapter_bert.Config = field(default_factory=adapter_bert.Config)
    """What stands after each of BERT's blocks."""

    freeze_bert: bool = False
    """Train nothing of BERT, as AB-Net does: only the adapters, the speech encoder and CTC learn, and from
    text alone the adapters."""

    noise: Noise = "abnet"
    """How the truth is hidden in training; see `speechkit.fusion.conditional_mlm.add_noise`."""

    label_smoothing: float = 0.1
    """Share of a target's probability that is spread over the vocabulary."""

    length: Literal["ctc", "predict", "oracle"] = "ctc"
    """How many tokens are expected: as many as CTC recognised; what a head of its own says; or as many as the
    reference has, which only validation knows: a bound, no result."""

    filling: mask_predict.Config = field(default_factory=mask_predict.Config)
    """How masks are filled in validation; decoding has its own."""

    weights: Weights = field(default_factory=Weights)
    """Weights of the loss terms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        if self.adapters.clock:
            raise ValueError("adapters.clock=true: only Wav-BERT's attention has a clock; leave it out")
