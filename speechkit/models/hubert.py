"""HuBERT pre-training (Hsu et al., 2021) over any encoder: tell the cluster of masked frames.

Labels come from `speechkit kmeans`, of MFCCs first and then of a block of the model trained before, in one
set or several at once (cluster ensembles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.data.labels import LabelSet
from speechkit.encoders import EncoderOutput
from speechkit.layers import span_mask
from speechkit.losses import masked_prediction as prediction
from speechkit.metrics.label_prediction import prediction_advice
from speechkit.models.assets import Assets
from speechkit.models.feature_penalty import check_penalty, feature_penalty, penalised_frames
from speechkit.models.hubert_config import Config
from speechkit.models.inputs import build_masked_encoder

__all__ = ["Config", "HubertModel", "build"]

SALT = 0x4B37
"""Keeps the draws of masks apart from others of the same key."""

RATES = {"speech": 16000.0, "features": 100.0}
"""Samples, or feature frames, a second."""


@dataclass(frozen=True)
class Frames:
    """Which frames of a batch are predicted, on the CPU; decided by its keys and lengths alone.

    Attributes:
        masked: `(B, T)` bool, hidden and labelled.
        unmasked: `(B, T)` bool, seen and labelled.
        encoded: number of encoder frames that the penalty is over.
    """

    masked: Tensor
    unmasked: Tensor
    encoded: int


class HubertModel(nn.Module):
    """Encoder and the classifier of its frames.

    Terms, each with `_<set>` appended when there are several label sets: `masked` and, with a weight,
    `unmasked`, the cross-entropies divided by the number of frames predicted with a weight; `penalty`.
    Watched only: `bits` (what is minimised, per predicted frame, to base 2), `accuracy` and
    `accuracy_unmasked`, and as means over micro-batches `perplexity` of the classes predicted and
    `label_perplexity` of the true ones.

    Args:
        config: see `Config`.
        encoder: of `speechkit.encoders.ENCODERS`.
        cmvn: normalises features, or `nn.Identity()`.
        input_dim: F of features; None for samples.
    """

    def __init__(self, config: Config, encoder: nn.Module, cmvn: nn.Module, input_dim: int | None) -> None:
        super().__init__()
        self.config, self.encoder, self.cmvn = config, encoder, cmvn
        if input_dim is not None:
            self.input_dim = input_dim
        columns = zip(config.labels, config.classes, config.label_rates)
        self.label_sets = [LabelSet(*column) for column in columns]
        self.shifts = config.label_shifts or [0] * len(self.label_sets)
        self.suffixes = [_suffix(s.field) if len(self.label_sets) > 1 else "" for s in self.label_sets]
        self.inputs = (encoder.takes,)
        self.requires = (encoder.takes, *config.labels)
        self.frame_rate = (config.input_rate or RATES[encoder.takes]) / encoder.stride
        self.update = 0
        self._build_head()
        self.weights = {f"masked{suffix}": config.masked_weight for suffix in self.suffixes}
        if config.unmasked_weight:
            self.weights |= {f"unmasked{suffix}": config.unmasked_weight for suffix in self.suffixes}
        penalty = config.penalty_weight
        if penalty is None:
            penalty = 10.0 if encoder.takes == "speech" else 0.0
        if penalty:
            encoder.keep_local = True
            self.weights["penalty"] = penalty

    def _build_head(self) -> None:
        """Names are fairseq's: `final_proj`, and for its `label_embs_concat` `label_embs`."""
        config, dim, total = self.config, self.encoder.output_dim, sum(self.config.classes)
        if config.head == "linear":
            self.final_proj, self.label_embs = nn.Linear(dim, total), None
            return
        chunks = len(config.labels) if config.untied else 1
        self.final_proj = nn.Linear(dim, config.projection_dim * chunks)
        self.label_embs = nn.Parameter(torch.empty(total, config.projection_dim).uniform_())

    def logits(self, frames: Tensor) -> list[Tensor]:
        """`(N, D)` encoder frames to the `(N, K)` logits of each label set."""
        config, projected = self.config, self.final_proj(frames)
        if self.label_embs is None:
            return list(projected.split(config.classes, dim=-1))
        untied = projected.split(config.projection_dim, dim=-1)
        parts = untied if config.untied else untied * len(config.labels)
        tables = self.label_embs.split(config.classes)
        return [prediction.cosine_logits(*pair, config.temperature) for pair in zip(parts, tables)]

    # What is predicted

    def frames(self, batch: Batch) -> Frames:
        """Draws the mask over the frames that have a label of every set."""
        inputs = batch[self.inputs[0]]
        encoded = self.encoder.output_lengths(inputs.lengths.cpu())
        lengths = encoded
        for labels, shift in zip(self.label_sets, self.shifts):
            counts = (batch[labels.field].lengths.cpu() - shift).clamp(min=0)
            ratio = labels.rate / self.frame_rate
            lengths = torch.minimum(lengths, prediction.labelled_lengths(encoded, counts, ratio))
        width = int(encoded.max())
        masked = span_mask.span_mask(lengths, self.config.mask, batch.keys, SALT, width)
        labelled = torch.arange(width) < lengths[:, None]
        penalised = penalised_frames(self.encoder, inputs, self.config.penalty_padding)
        return Frames(masked, labelled & ~masked, penalised)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Predicted frames; of accuracies those they are of; for the penalty all; 1 for perplexities."""
        return self._counts(self.frames(batch))

    def _counts(self, frames: Frames) -> dict[str, int]:
        masked, unmasked = int(frames.masked.sum()), int(frames.unmasked.sum())
        config = self.config
        predicted = masked * (config.masked_weight > 0) + unmasked * (config.unmasked_weight > 0)
        counts = {name: frames.encoded if name == "penalty" else predicted for name in self.weights}
        counts["bits"] = predicted
        for suffix in self.suffixes:
            counts[f"accuracy{suffix}"] = masked
            counts[f"accuracy_unmasked{suffix}"] = unmasked if self._unmasked_due() else 0
            counts |= dict.fromkeys((f"perplexity{suffix}", f"label_perplexity{suffix}"), int(masked > 0))
        return counts

    def _unmasked_due(self) -> bool:
        config = self.config
        return config.unmasked_weight > 0 or not self.training or self.update % config.log_interval == 0

    # The loss

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""
        frames = self.frames(batch)
        values, counts = self._values(batch, frames), self._counts(frames)
        return {name: (values[name], count) for name, count in counts.items()}

    def _values(self, batch: Batch, frames: Frames) -> dict[str, Tensor]:
        inputs = batch[self.inputs[0]]
        mask = frames.masked.to(inputs.values.device)
        output = self.encoder(self.cmvn(inputs.values), inputs.lengths, mask=mask)
        values = self._predict(batch, output, frames.masked, "masked", "accuracy", with_perplexity=True)
        if self._unmasked_due():
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.unmasked_weight > 0):
                values |= self._predict(batch, output, frames.unmasked, "unmasked", "accuracy_unmasked")
        else:
            zero = torch.zeros((), device=mask.device)
            values |= {f"accuracy_unmasked{suffix}": zero for suffix in self.suffixes}
        if "penalty" in self.weights:
            values["penalty"] = feature_penalty(self.encoder, output, inputs, self.config.penalty_padding)
        values["bits"] = self._bits(values, frames)
        return values

    def _predict(
        self,
        batch: Batch,
        output: EncoderOutput,
        chosen: Tensor,
        term: str,
        accuracy: str,
        with_perplexity: bool = False,
    ) -> dict[str, Tensor]:
        """Loss and what is watched over the chosen `(B, T)` frames, for each label set."""
        index = chosen.flatten().nonzero().squeeze(1).to(output.frames.device)
        hidden = output.frames.flatten(0, 1).index_select(0, index)
        values = {}
        columns = zip(self.label_sets, self.shifts, self.suffixes, self.logits(hidden))
        for labels, shift, suffix, logits in columns:
            track = batch[labels.field].values[:, shift:]
            ratio = labels.rate / self.frame_rate
            targets = prediction.frame_labels(track, chosen.size(1), ratio)
            targets = targets.flatten().index_select(0, index)
            values[term + suffix] = prediction.prediction_loss(logits, targets)
            with torch.no_grad():
                values[accuracy + suffix] = prediction.correct(logits, targets).sum()
                if with_perplexity:
                    best = logits.argmax(-1)
                    values[f"perplexity{suffix}"] = prediction.class_perplexity(best, labels.classes)
                    true = prediction.class_perplexity(targets, labels.classes)
                    values[f"label_perplexity{suffix}"] = true
        return values

    def _bits(self, values: dict[str, Tensor], frames: Frames) -> Tensor:
        """The objective times the number of predicted frames, to base 2: fairseq's `loss` before division."""
        counts = self._counts(frames)
        parts = [
            weight * values[name].detach() * (counts["bits"] / max(1, counts[name]))
            for name, weight in self.weights.items()
        ]
        return torch.stack(parts).sum() / math.log(2)

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Nothing: this system has no output to decode."""
        return {}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` encoder frames of inputs of so many samples or feature frames."""
        return self.encoder.output_lengths(lengths)

    def set_update(self, update: int) -> None:
        """Notes the update, on which depends whether unmasked frames are watched."""
        self.update = update

    def advise(self, row: dict[str, float]) -> str | None:
        """Plain words about collapsed or trivial predictions, once `alarm_after` updates are made."""
        if row["update"] < self.config.alarm_after:
            return None
        for labels, suffix in zip(self.label_sets, self.suffixes):
            words = prediction_advice(row, suffix)
            if words:
                return f"{labels.field}: {words}"
        return None


def _suffix(name: str) -> str:
    return f"_{name.removeprefix('kmeans_')}"


def build(config: Config, assets: Assets) -> HubertModel:
    """The model, with CMVN statistics for an encoder of features.

    Raises:
        InputError: statistics of another dimension, an encoder that cannot hide frames, or a penalty for
            features that the encoder does not have.
    """
    encoder, cmvn, dim = build_masked_encoder(config.encoder, config.input_dim, assets)
    check_penalty(config.penalty_weight, encoder, config.encoder.name)
    return HubertModel(config, encoder, cmvn, dim)
