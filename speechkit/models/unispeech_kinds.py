"""The labelled and the unlabelled speech of a batch, whose contrastive terms UniSpeech weighs apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechkit.data.batch import Batch, Padded
from speechkit.encoders import EncoderOutput
from speechkit.models import contrastive_parts as parts
from speechkit.models.contrastive_parts import Masked
from speechkit.models.feature_penalty import feature_penalty
from speechkit.models.unispeech_codes import Compared

if TYPE_CHECKING:
    from speechkit.models.unispeech import UniSpeechModel

WATCHED = ("bits", "accuracy", "code_perplexity", "probability_perplexity")
"""Told of labelled speech under these names, and of unlabelled speech with `UNLABELLED` after them."""

UNLABELLED = "_unlabelled"


@dataclass(frozen=True)
class Kind:
    """The labelled or the unlabelled utterances of a batch.

    Attributes:
        suffix: what the names of their watched values end in.
        rows: `(B,)` bool on the CPU: which they are, at least one.
        share: weight of their contrastive terms.
    """

    suffix: str
    rows: Tensor
    share: float

    @property
    def everything(self) -> bool:
        """Whether the batch has no other utterance."""
        return bool(self.rows.all())

    def places(self, masked: Masked) -> Tensor:
        """`(N,)` places of their frames among the masked ones of the batch."""
        utterance = masked.mask.nonzero()[:, 0]
        return self.rows.index_select(0, utterance).nonzero().squeeze(1)

    def count(self, masked: Masked) -> int:
        """Number of their masked frames that are trained on."""
        return int(masked.mask[self.rows].sum()) if self.share else 0


def labelled_rows(batch: Batch) -> Tensor:
    """`(B,)` bool on the CPU: which utterances have tokens."""
    if "tokens" not in batch:
        return torch.zeros(len(batch), dtype=torch.bool)
    return batch["tokens"].lengths.cpu() > 0


def kinds_of(batch: Batch, alpha: float) -> list[Kind]:
    """The kinds that a batch has, the labelled first; without CTC (`alpha` 0) all speech is one."""
    if not alpha:
        return [Kind("", torch.ones(len(batch), dtype=torch.bool), 1.0)]
    labelled = labelled_rows(batch)
    kinds = (Kind("", labelled, 1 - alpha), Kind(UNLABELLED, ~labelled, 1.0))
    return [kind for kind in kinds if kind.rows.any()]


def contrastive_terms(
    compared: Compared, masked: Masked, kinds: Sequence[Kind], form: str, entries: int
) -> dict[str, Tensor]:
    """The contrastive loss and diversity, those of each kind times its share; and `WATCHED` of each kind.

    Diversity is of the mean over the frames of one kind, so that these are the terms of two batches.

    Args:
        compared: over all masked frames of the batch.
        masked: what was hidden.
        kinds: those that have a share.
        form: of the diversity loss.
        entries: of a codebook.
    """
    values: dict[str, Tensor] = {}
    for kind in kinds:
        part = compared if kind.everything else compared.at(kind.places(masked))
        found = parts.contrastive_values(part.logits)
        found |= parts.usage_values(part.codes, part.probabilities, entries, form, part.logits)
        for name in ("contrastive", "diversity"):
            values[name] = values.get(name, 0) + kind.share * found.pop(name)
        values |= {f"{name}{kind.suffix}": value for name, value in found.items()}
    return values


def penalty_of(model: UniSpeechModel, output: EncoderOutput, inputs: Padded, kinds: Sequence[Kind]) -> Tensor:
    """The penalty on the size of features, that of each kind times its share."""

    def of(kind: Kind) -> Tensor:
        heard, said = output, inputs
        if not kind.everything:
            index = kind.rows.nonzero().squeeze(1).to(inputs.values.device)
            heard = replace(output, local_raw=output.local_raw.index_select(0, index))
            said = Padded(inputs.values.index_select(0, index), inputs.lengths.index_select(0, index))
        return feature_penalty(model.encoder, heard, said, model.config.penalty_padding)

    return sum(kind.share * of(kind) for kind in kinds)
