"""Settings of Wav-BERT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechkit.config import check_range
from speechkit.encoders import bert
from speechkit.fusion import confidence, embedding_attention, representation_aggregation
from speechkit.models import ctc, linguistic_input
from speechkit.search import two_vocabularies


@dataclass
class Weights:
    """Weights of the loss terms (equation 1 of Zheng et al., 2021; all 0.5 there)."""

    ctc: float = 0.5
    """mu_1: CTC on the speech encoder alone."""

    cmlm: float = 0.5
    """mu_2: the conditional masked language model on BERT's output."""

    ctc2: float = 0.5
    """mu_3: CTC on the fused acoustic side."""

    ce: float = 0.5
    """mu_4: cross entropy on the fused linguistic side."""

    text: float = 0.5
    """Both linguistic terms on batches of text alone, which there must be then. 0 learns from speech alone,
    as published, and takes no text sets."""

    def __post_init__(self) -> None:
        for name in ("ctc", "cmlm", "ctc2", "ce", "text"):
            check_range(name, getattr(self, name), 0)


@dataclass
class Config(ctc.Config):
    """A speech encoder and a BERT that read each other."""

    name: str = "wavbert"
    """The model's kind."""

    bert: bert.Config = field(default_factory=bert.Config)
    """The linguistic encoder."""

    units: two_vocabularies.Units = "shared"
    """How what CTC says becomes BERT's pieces, see there: `shared`, `retokenised` or `words`."""

    bridge: bool = True
    """Brings the speech encoder's frames to BERT's width, by a linear layer and a norm, before the two meet;
    only where the widths differ."""

    embedding_attention: embedding_attention.Config | None = field(default_factory=embedding_attention.Config)
    """BERT's embeddings hear the speech; null leaves that out."""

    aggregation: representation_aggregation.Config = field(default_factory=representation_aggregation.Config)
    """How the two outputs read each other."""

    linguistic: linguistic_input.Config = field(default_factory=linguistic_input.Config)
    """What BERT reads in training: the truth with noise, or what CTC recognised."""

    reads: Literal["tokens", "masks"] = "tokens"
    """`masks`: BERT sees nothing but [MASK], in training and after: a control, which knows lengths only."""

    cmlm_head: Literal["bert", "new"] = "bert"
    """Output layer of the conditional masked language model: BERT's own, or one that knows nothing."""

    ce_head: Literal["bert", "linear"] = "bert"
    """Output layer of the cross entropy: that of the conditional masked language model, so that BERT's words
    stay known, or a linear one that knows nothing (as published)."""

    word_scores: bool = False
    """The cross-entropy output adds to its logits what CTC makes of every word in the frames of a position,
    by a learnt factor; for units=words."""

    spare_unheard: bool = False
    """Words of the linguistic vocabulary that no transcript of the training speech has are no wrong answers
    to speech: only text teaches when they are wrong. Else speech teaches that they never are right."""

    refine: int = 1
    """Passes through BERT in recognition; from the second on it reads its own answers."""

    choice: confidence.Config = field(default_factory=confidence.Config)
    """Which output is kept in validation; decoding has its own."""

    weights: Weights = field(default_factory=Weights)
    """Weights of the loss terms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("refine", self.refine, 1)
        if self.word_scores and self.units != "words":
            raise ValueError("word_scores=true: CTC's scores of words need units=words")
        if self.normaliser != "utterances":
            raise ValueError("normaliser=tokens: all terms are divided by utterances here; leave it out")
        if self.units != "shared" and self.choice.unit == "token":
            raise ValueError(f"units={self.units}: two outputs of different units; say choice.unit=word")
