"""The configuration of UniSpeech."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechkit.config import check_range
from speechkit.layers import span_mask
from speechkit.losses import contrastive
from speechkit.models import wav2vec2_pretraining_config


@dataclass
class Spans(span_mask.Config):
    """Which frames are hidden; UniSpeech hides fewer than wav2vec 2.0."""

    probability: float = 0.5
    """Spans x length / frames, before overlaps; a share of 0.05 of the frames starts a span."""


@dataclass
class Distractors(contrastive.Config):
    """Distractors and the similarity."""

    negatives_from_everywhere: bool = True
    """Draw from all frames of the utterance but the own one, as published; false draws from masked ones."""


@dataclass
class Config(wav2vec2_pretraining_config.Config):
    """UniSpeech; the defaults are those of its Base model, and what is not told here is as in wav2vec 2.0.

    Whether it learns from labelled and unlabelled speech at once or in sequence is a matter of the data that
    a run is given, and of the weights that it starts from: the second run of a sequence has `alpha: 0`.
    """

    name: str = "unispeech"
    """The model's kind."""

    alpha: float = 0.5
    """Weight of CTC on labelled speech, where the contrastive terms have 1 - alpha; on unlabelled speech
    these have 1. At 0 there is no CTC head, and `text` is not read."""

    replace: float = 0.5
    """r, the probability that CTC is given a frame's codeword in the place of the encoder's output."""

    replace_span: int = 1
    """Neighbouring frames that are replaced together."""

    replace_eval: bool = False
    """Whether the CTC loss is computed with replaced frames in evaluation too; decoding never replaces."""

    mix: Literal["homogeneous", "mixed"] = "homogeneous"
    """Whether a micro-batch may hold labelled and unlabelled speech; `homogeneous` needs
    `plan.source_batches: single`. The terms are the same sums in both, but for diversity, which is of the
    mean over the frames of one kind in a micro-batch."""

    ctc_unmasked_pass: bool = False
    """Whether CTC hears everything in training too, in a second pass of the encoder, which costs as much as
    the first one; published is false: hiding frames is CTC's augmentation."""

    quantizer_calls: Literal[1, 2] = 1
    """1: a frame has one codeword, for everything; 2: true targets have noise of their own, as released."""

    q_layernorm: bool = False
    """Normalise codewords before they replace outputs, whose scale they otherwise need not have."""

    ctc_norm: Literal["masked", "tokens", "utterances"] = "masked"
    """What the CTC term is divided by: masked frames of all speech, as the contrastive one is (the sum of
    both is then the published objective over their number), or tokens, or labelled utterances."""

    dropout: float = 0.1
    """Probability of dropping a value before the output layer."""

    mask: Spans = field(default_factory=Spans)
    """Which frames are hidden: from CTC as well, in training."""

    contrastive: Distractors = field(default_factory=Distractors)
    """Distractors and the similarity."""

    penalty_weight: float | None = 0.0
    """Weight of the mean square of the features before their norm; 0 leaves the term out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, 0, 1)
        check_range("replace", self.replace, 0, 1)
        check_range("replace_span", self.replace_span, 1)
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        if self.targets != "gumbel":
            raise ValueError(f"targets={self.targets}: UniSpeech replaces frames by codewords; leave it out")
