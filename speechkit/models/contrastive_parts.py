"""What contrastive pre-training is made of, whatever it is combined with (wav2vec 2.0, UniSpeech)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.encoders import EncoderOutput
from speechkit.layers import span_mask
from speechkit.layers.dropout import dropout
from speechkit.layers.gumbel_quantizer import GumbelQuantizer
from speechkit.layers.norms import utterance_norm
from speechkit.losses import contrastive
from speechkit.losses.contrastive import Draw
from speechkit.losses.diversity import diversity_loss, perplexity
from speechkit.metrics.codebook import usage
from speechkit.models.feature_penalty import penalised_frames

SALT = 0x3A5C
"""Keeps the draws of masks apart from others of the same key."""


@dataclass(frozen=True)
class Masked:
    """What is hidden in a batch; decided by its keys and lengths alone.

    Attributes:
        mask: `(B, T)` bool on the CPU; none or at least 2 frames of an utterance.
        lengths: `(B,)` frames on the CPU.
        count: number of masked frames.
        penalised: number of frames that the penalty is over.
    """

    mask: Tensor
    lengths: Tensor
    count: int
    penalised: int

    @property
    def valid(self) -> Tensor:
        """`(B, T)` bool on the CPU, True at frames that are no padding."""
        return torch.arange(self.mask.size(1)) < self.lengths[:, None]

    def candidates(self, config: contrastive.Config) -> Tensor:
        """`(B, T)` bool on the CPU: the frames that distractors come from."""
        return self.valid if config.negatives_from_everywhere else self.mask


def draw_mask(encoder: nn.Module, takes: str, batch: Batch, config: Any) -> Masked:
    """Draws the mask; an utterance with a single masked frame has no distractor and is left unmasked.

    Args:
        encoder: of samples or features.
        takes: the field that it reads.
        batch: keys and lengths are read.
        config: `wav2vec2_pretraining_config.Config`.
    """
    inputs = batch[takes]
    lengths = encoder.output_lengths(inputs.lengths.cpu())
    mask = span_mask.span_mask(lengths, config.mask, batch.keys, SALT)
    mask &= mask.sum(1, keepdim=True) > 1
    frames = penalised_frames(encoder, inputs, config.penalty_padding)
    return Masked(mask, lengths, int(mask.sum()), frames)


@dataclass(frozen=True)
class TargetSource:
    """How local features become what targets are made from.

    Attributes:
        norm: "encoder" or "utterance", see `wav2vec2_pretraining_config.Config.target_norm`.
        gradient: factor of the gradient into the encoder.
        dropout: probability of dropping a value in training.
    """

    norm: str
    gradient: float
    dropout: float

    @classmethod
    def of(cls, config: Any, encoder: nn.Module) -> TargetSource:
        """What a configuration says, or, where it says nothing, what suits samples or features."""
        samples = encoder.takes == "speech"
        gradient = config.target_gradient
        if gradient is None:
            gradient = 1.0 if samples else 0.0
        norm = config.target_norm or ("encoder" if samples else "utterance")
        return cls(norm, gradient, config.dropout_features)

    def __call__(self, output: EncoderOutput, chosen: Tensor, training: bool) -> Tensor:
        """`(P, C)` local features of the chosen frames.

        Args:
            output: of the encoder, with `local`.
            chosen: `(B, T)` bool on the CPU.
            training: whether to drop values.
        """
        local = output.local
        if self.norm == "utterance":
            local = utterance_norm(local, output.lengths)
        x = frames_at(local, chosen)
        if self.gradient != 1:
            still = x.detach()
            x = still + self.gradient * (x - still) if self.gradient else still
        return dropout(x, self.dropout) if training and self.dropout else x


def frames_at(x: Tensor, chosen: Tensor) -> Tensor:
    """The chosen frames `(N, D)` of `(B, T, D)`, in order; `chosen` is `(B, T)` bool on the CPU."""
    index = chosen.flatten().nonzero().squeeze(1).to(x.device)
    return x.flatten(0, 1).index_select(0, index)


def places(inner: Tensor, outer: Tensor) -> Tensor:
    """`(N,)` places of the frames of one choice among those of a wider one; `(B, T)` bool on the CPU each."""
    return inner[outer].nonzero().squeeze(1)


def comparison_logits(
    predictions: Tensor,
    targets: Tensor,
    words: Tensor,
    draw: Draw,
    config: contrastive.Config,
    quantizer: GumbelQuantizer | None,
    project: Callable[[Tensor], Tensor],
) -> Tensor:
    """`(N, 1 + K)`, the true target first; among the others are random codewords where these are asked for.

    Args:
        predictions: `(N, F)` of the masked frames.
        targets: `(P, F)` of all candidates.
        words: `(P,)` numbers that equal targets share.
        draw: which belongs to which.
        config: how many distractors, from where.
        quantizer: of the targets; None without codewords.
        project: codewords to targets.
    """
    logits = contrastive.contrastive_logits(predictions, targets, draw, words, config.temperature)
    if not config.codebook_negatives:
        return logits
    codes = contrastive.draw_codes(draw, config.codebook_negatives, quantizer.groups, quantizer.entries)
    equal = quantizer.words(codes) == contrastive.own_words(draw, words)[:, None]
    vectors = project(quantizer.lookup(codes))
    more = contrastive.codebook_logits(predictions, vectors, equal, config.temperature)
    return torch.cat([logits, more], dim=1)


def contrastive_values(logits: Tensor) -> dict[str, Tensor]:
    """Sums over frames: the loss in nats, in `bits`, and how often the true target wins (`accuracy`)."""
    total = contrastive.contrastive_loss(logits).sum()
    return {
        "contrastive": total,
        "bits": total.detach() / math.log(2),
        "accuracy": contrastive.correct(logits.detach()).sum(),
    }


def usage_values(
    codes: Tensor, probabilities: Tensor, entries: int, form: str, targets: Tensor
) -> dict[str, Tensor]:
    """The diversity loss times the number of frames, and perplexities; zeros without a frame.

    Args:
        codes: `(N, G)` of the masked frames.
        probabilities: `(N, G, V)`, see `speechkit.layers.gumbel_quantizer.Quantized`.
        entries: V.
        form: of the diversity loss.
        targets: what the zeros hang on, so that they too have a gradient.
    """
    count = len(codes)
    if not count:
        nothing = 0 * targets.sum()
        watched = dict.fromkeys(("code_perplexity", "probability_perplexity"), nothing.detach())
        return {"diversity": nothing, **watched}
    return {
        "diversity": count * diversity_loss(probabilities, form),
        "code_perplexity": perplexity(usage(codes, entries)),
        "probability_perplexity": perplexity(probabilities.detach().mean(0)),
    }
