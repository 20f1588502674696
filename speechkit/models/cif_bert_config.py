"""Settings of w2v-CIF-BERT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechkit.config import check_range
from speechkit.encoders import bert
from speechkit.fusion import gold_rate
from speechkit.models import ctc
from speechkit.search import two_vocabularies


@dataclass
class Weights:
    """Weights of the loss terms, as published."""

    ce: float = 1.0
    """Cross entropy at the slots that are not gold."""

    quantity: float = 0.2
    """How far the sum of the firing weights is from the number of tokens."""

    ctc: float = 2.0
    """CTC on the content channels."""

    def __post_init__(self) -> None:
        for name in ("ce", "quantity", "ctc"):
            check_range(name, getattr(self, name), 0)


@dataclass
class Config(ctc.Config):
    """A speech encoder whose frames are fired into the slots of a BERT."""

    name: str = "cif_bert"
    """The model's kind."""

    normaliser: Literal["utterances", "tokens"] = "tokens"
    """CTC's sum is divided by its tokens and that of the cross entropy by the slots that are not gold, as
    published; or both by utterances."""

    bert: bert.Config = field(default_factory=bert.Config)
    """The linguistic encoder."""

    units: two_vocabularies.Units = "shared"
    """How what CTC says becomes BERT's pieces, see there: `shared`, `retokenised` or `words`."""

    ctc_head: Literal["bert", "linear"] = "bert"
    """Output layer of CTC: a copy of BERT's head with a row for the blank, as published, or a linear layer,
    which a CTC system's may be loaded into."""

    train_words: bool = False
    """Train BERT's word table too; as published it stays as it is."""

    gold: gold_rate.Config = field(default_factory=gold_rate.Config)
    """How often a slot holds the true word in training, and when a predicted word is believed in decoding."""

    lambda_am: float = 0.8
    """Share of the acoustic logits."""

    lambda_lm: float = 0.2
    """Share of BERT's logits."""

    weights: Weights = field(default_factory=Weights)
    """Weights of the loss terms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("lambda_am", self.lambda_am, 0)
        check_range("lambda_lm", self.lambda_lm, 0)
        if self.lambda_am + self.lambda_lm == 0:
            raise ValueError("lambda_am=0 and lambda_lm=0: nothing would be said")
        if self.units != "shared" and self.ctc_head == "bert":
            raise ValueError(f"units={self.units}: CTC's units are not BERT's; say ctc_head=linear")
