"""The configuration of wav2vec 2.0 pre-training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from speechkit.config import check_range, kind
from speechkit.encoders import ENCODERS
from speechkit.layers import gumbel_quantizer, span_mask
from speechkit.losses import contrastive


@dataclass
class Config:
    """wav2vec 2.0; the defaults are the Base model's."""

    name: str = "wav2vec2"
    """The model's kind."""

    input_dim: int | None = None
    """Feature dimension; null takes it from the CMVN statistics, or 80 without any. Samples have none."""

    encoder: Any = kind(ENCODERS, "wav2vec2")
    """The encoder, of samples or of features; one of features needs `mask_embedding: true`."""

    mask: span_mask.Config = field(default_factory=span_mask.Config)
    """Which frames are hidden and predicted."""

    targets: Literal["gumbel", "linear"] = "gumbel"
    """What is told apart: codewords, or a projection of the local features without quantization."""

    quantizer: gumbel_quantizer.Config = field(default_factory=gumbel_quantizer.Config)
    """Codebooks; not used by `targets: linear`."""

    contrastive: contrastive.Config = field(default_factory=contrastive.Config)
    """Distractors and the similarity."""

    projection_dim: int = 256
    """F, dimension in which predictions and targets are compared: 256 in Base, 768 in Large."""

    target_norm: Literal["encoder", "utterance"] | None = None
    """How features are normalised before they become targets: as the encoder does, or each channel over the
    frames of the utterance; null is `encoder` with samples and `utterance` with features, whose subsampling
    has no norm: what all frames have in common would leave few codes in use."""

    target_gradient: float | None = None
    """Factor of the gradient from the targets into the encoder; null is 1 with samples (where the
    encoder's `feature_grad_mult` comes on top) and 0 with features. Small runs learn sooner with 0."""

    dropout_features: float = 0.1
    """Probability of dropping a value of what targets are made from; 0 in Large."""

    diversity: Literal["perplexity", "entropy"] = "perplexity"
    """Form of the diversity loss: as released, or as printed. It is of the mean over a micro-batch;
    one over all processes would make an update depend on which micro-batches they share, and wait for the
    others within the loss."""

    diversity_weight: float = 0.1
    """Weight of the diversity loss."""

    penalty_weight: float | None = None
    """Weight of the mean square of the features before their norm: 0 in Large (the term is only watched);
    null is 10, as in Base, with an encoder of samples, and no such term with others."""

    penalty_padding: bool = False
    """Whether frames of padding count in that mean, as published: where a batch is padded they cost its
    convolutions once more."""

    alarm_after: int = 1000
    """Updates before the log warns of a collapsed codebook or a loss at chance; the warm-up's, say."""

    def __post_init__(self) -> None:
        check_range("projection_dim", self.projection_dim, 1)
        if self.input_dim is not None:
            check_range("input_dim", self.input_dim, 1)
        check_range("dropout_features", self.dropout_features, 0, 1, open_high=True)
        for name in ("diversity_weight", "alarm_after", "penalty_weight", "target_gradient"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 0)
        if self.targets == "linear" and self.contrastive.codebook_negatives:
            raise ValueError("contrastive.codebook_negatives: linear targets have no codebook; set it to 0")
        if self.targets == "gumbel" and (self.quantizer.dim or self.projection_dim) % self.quantizer.groups:
            raise ValueError(
                f"projection_dim={self.projection_dim} must be a multiple of "
                f"quantizer.groups={self.quantizer.groups}, or quantizer.dim given"
            )
