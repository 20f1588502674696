"""UniSpeech's codewords of a batch, and telling those of masked frames apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechkit.layers.gumbel_quantizer import Quantized
from speechkit.losses import contrastive
from speechkit.losses.contrastive import Draw
from speechkit.models import contrastive_parts as parts
from speechkit.models.contrastive_parts import Masked

if TYPE_CHECKING:
    from speechkit.models.unispeech import UniSpeechModel


@dataclass(frozen=True)
class Coded:
    """Codewords of some frames of a batch.

    Attributes:
        chosen: `(B, T)` bool on the CPU: which frames.
        targets: `(P, D)` their codewords in the space of the encoder's outputs.
        quantized: their codes.
        words: `(P,)` a number for each that equal codewords share.
    """

    chosen: Tensor
    targets: Tensor
    quantized: Quantized
    words: Tensor

    def places(self, frames: Tensor) -> Tensor:
        """`(N,)` places of these frames, `(B, T)` bool on the CPU, among the chosen ones."""
        return parts.places(frames, self.chosen).to(self.targets.device)


@dataclass(frozen=True)
class Compared:
    """The masked frames beside their targets and distractors.

    Attributes:
        logits: `(N, 1 + K)` over the true target and its distractors.
        codes: `(N, G)` of the true targets.
        probabilities: `(N, G, V)` of the true targets.
    """

    logits: Tensor
    codes: Tensor
    probabilities: Tensor

    def at(self, places: Tensor) -> Compared:
        """Some of the frames, by their places."""
        places = places.to(self.logits.device)
        columns = (self.logits, self.codes, self.probabilities)
        return Compared(*(column.index_select(0, places) for column in columns))


def compare(
    frames: Tensor, masked: Masked, keys: Tensor, own: Coded, pool: Coded, model: UniSpeechModel
) -> Compared:
    """Holds the outputs at masked frames against the codewords there.

    Args:
        frames: `(B, T, D)` outputs of the encoder.
        masked: what was hidden.
        keys: `(B,)` of the batch.
        own: codewords of the masked frames at least, the true targets.
        pool: of all that are distractors at least; the same as `own` where a frame has one codeword.
        model: its configuration, quantizer and projection are used.
    """
    config, quantizer = model.config.contrastive, model.quantizer
    predictions = parts.frames_at(frames, masked.mask)
    draw = contrastive.draw_distractors(masked.mask, masked.lengths, keys, config).to(frames.device)
    source = pool if config.negatives_from_everywhere else own
    index = source.places(masked.candidates(config))
    targets, words = source.targets.index_select(0, index), source.words.index_select(0, index)
    if source is not own:
        draw, order = with_positives(draw)
        targets = torch.cat([own.targets, targets]).index_select(0, order)
        words = torch.cat([own.words, words]).index_select(0, order)
    logits = parts.comparison_logits(predictions, targets, words, draw, config, quantizer, model.project)
    inside = own.places(masked.mask)
    codes = own.quantized.codes.index_select(0, inside)
    probabilities = own.quantized.probabilities.index_select(0, inside)
    return Compared(logits, codes, probabilities)


def with_positives(draw: Draw) -> tuple[Draw, Tensor]:
    """A draw whose true ones are candidates of their own, before the others of their group.

    Args:
        draw: N frames to predict, P candidates.

    Returns:
        The draw, and `(N + P,)` which of the true ones and then the candidates come where.
    """
    groups = torch.arange(len(draw.rows))
    positive, candidate = groups.repeat_interleave(draw.rows), groups.repeat_interleave(draw.sizes)
    order = torch.cat([2 * positive, 2 * candidate + 1]).argsort(stable=True)
    rank = torch.arange(len(positive)) - (draw.rows.cumsum(0) - draw.rows).index_select(0, positive)
    device, shift = draw.own.device, draw.rows.index_select(0, positive)[:, None]
    moved = replace(
        draw, sizes=draw.rows + draw.sizes, own=rank.to(device), others=draw.others + shift.to(device)
    )
    return moved, order.to(device)
