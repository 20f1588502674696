"""Settings of Embedding Replacement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechkit.config import check_range
from speechkit.encoders import bert
from speechkit.fusion import confidence, embedding_replacement, representation_aggregation
from speechkit.models import ctc
from speechkit.search import two_vocabularies


@dataclass
class Weights:
    """Weights of the loss terms; as in Wav-BERT (Zheng et al., 2021, equation 1) all 0.5."""

    ctc: float = 0.5
    """CTC on the speech encoder alone."""

    bert: float = 0.5
    """Cross entropy on BERT's output, where Wav-BERT has its conditional masked language model."""

    acoustic: float = 0.5
    """The acoustic side of the aggregation: `hpos`, a cross entropy, or `ctc2`."""

    ce: float = 0.5
    """Cross entropy on the linguistic side of the aggregation."""

    def __post_init__(self) -> None:
        for name in ("ctc", "bert", "acoustic", "ce"):
            check_range(name, getattr(self, name), 0)


@dataclass
class Config(ctc.Config):
    """A BERT that reads speech in the slots of its word embeddings."""

    name: str = "embedding_replacement"
    """The model's kind."""

    bert: bert.Config = field(default_factory=bert.Config)
    """The linguistic encoder."""

    units: two_vocabularies.Units = "shared"
    """How what CTC says becomes BERT's pieces, see there: `shared`, `retokenised` or `words`."""

    bridge: bool = True
    """Brings the speech encoder's frames to BERT's width, by a linear layer and a norm, before the two meet;
    only where the widths differ."""

    replacement: embedding_replacement.Config = field(default_factory=embedding_replacement.Config)
    """The positions that take the place of BERT's words."""

    aggregation: representation_aggregation.Config = field(default_factory=representation_aggregation.Config)
    """How the two outputs read each other."""

    er_acoustic: Literal["hpos", "ha"] = "hpos"
    """What BERT's output meets in the aggregation: `hpos`, the positions that it was given, which answer by
    cross entropy; `ha`, the frames of the speech encoder, which answer by a second CTC as in Wav-BERT."""

    ce_head: Literal["bert", "linear"] = "bert"
    """Output layer of the linguistic side: BERT's own, or a linear one that knows nothing."""

    choice: confidence.Config = field(default_factory=confidence.Config)
    """Which output is kept in validation (`ctc2` is the acoustic side); decoding has its own."""

    weights: Weights = field(default_factory=Weights)
    """Weights of the loss terms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normaliser != "utterances":
            raise ValueError("normaliser=tokens: all terms are divided by utterances here; leave it out")
        if self.replacement.clock or self.aggregation.clock:
            raise ValueError("clock=true: the positions of Embedding Replacement have no time; leave it out")
        mixed = self.units != "shared" and self.er_acoustic == "ha"
        if mixed and self.choice.unit == "token":
            raise ValueError(
                f"units={self.units}, er_acoustic=ha: two outputs of different units; say choice.unit=word"
            )
