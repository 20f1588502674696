"""wav2vec 2.0 pre-training (Baevski et al., 2020) over any encoder: tell masked frames' targets apart.

Targets are codewords of the unmasked local features, or a linear projection of them (the pre-trained
Conformer of Zhang et al., 2020). With several languages in the training data this is XLSR.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.encoders import EncoderOutput
from speechkit.layers.gumbel_quantizer import GumbelQuantizer, Quantized
from speechkit.losses import contrastive
from speechkit.losses.contrastive import Draw
from speechkit.metrics.codebook import contrastive_advice
from speechkit.models import contrastive_parts as parts
from speechkit.models.assets import Assets
from speechkit.models.contrastive_parts import Masked
from speechkit.models.feature_penalty import check_penalty, feature_penalty
from speechkit.models.inputs import build_masked_encoder
from speechkit.models.wav2vec2_pretraining_config import Config

__all__ = ["Config", "Masked", "Wav2Vec2Model", "build"]


class Wav2Vec2Model(nn.Module):
    """Encoder, targets and the heads that compare them, named as in Hugging Face's `Wav2Vec2ForPreTraining`.

    Terms: `contrastive` (a sum over masked frames), `diversity` (a function of a mean, hence not additive
    over micro-batches: its value times the number of masked frames), `penalty` (a sum over frames).
    Watched only: `bits` (the contrastive loss to base 2, as in published logs), `accuracy`, and, as means
    over micro-batches, the quantizer's `code_perplexity`, `probability_perplexity` and `temperature`.

    Args:
        config: see `Config`.
        encoder: of `speechkit.encoders.ENCODERS`.
        cmvn: normalises features, or `nn.Identity()`.
        input_dim: F of features; None for samples.
    """

    def __init__(self, config: Config, encoder: nn.Module, cmvn: nn.Module, input_dim: int | None) -> None:
        super().__init__()
        self.config, self.encoder, self.cmvn = config, encoder, cmvn
        self.requires = self.inputs = (encoder.takes,)
        if input_dim is not None:
            self.input_dim = input_dim
        encoder.keep_local = True
        self.weights = {"contrastive": 1.0}
        self.quantizer = None
        local_dim, dim = encoder.local_dim, config.projection_dim
        if config.targets == "gumbel":
            self.weights["diversity"] = config.diversity_weight
            self.quantizer = GumbelQuantizer(config.quantizer, local_dim, config.quantizer.dim or dim)
            local_dim = config.quantizer.dim or dim
        self.penalised = encoder.takes == "speech"
        self.source = parts.TargetSource.of(config, encoder)
        if self.penalised and config.penalty_weight != 0:
            self.weights["penalty"] = config.penalty_weight or 10.0
        self.project_q = nn.Linear(local_dim, dim)
        self.project_hid = nn.Linear(encoder.output_dim, dim)

    def masked(self, batch: Batch) -> Masked:
        """Draws the mask; an utterance with a single masked frame has no distractor and is left unmasked."""
        return parts.draw_mask(self.encoder, self.inputs[0], batch, self.config)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked frames; for the penalty all frames; 1 for perplexities and the temperature."""
        return self._counts(self.masked(batch))

    def _counts(self, masked: Masked) -> dict[str, int]:
        counts = dict.fromkeys(("contrastive", "bits", "accuracy"), masked.count)
        if self.penalised:
            counts["penalty"] = masked.penalised
        if self.quantizer is not None:
            counts["diversity"] = masked.count
            watched = ("code_perplexity", "probability_perplexity", "temperature")
            counts |= dict.fromkeys(watched, int(masked.count > 0))
        return counts

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0 and sets the temperature."""
        masked = self.masked(batch)
        counts = self._counts(masked)
        values = self._values(batch, masked, self.config.quantizer.temperature(update))
        return {name: (values[name], count) for name, count in counts.items()}

    def _values(self, batch: Batch, masked: Masked, temperature: float) -> dict[str, Tensor]:
        inputs = batch[self.inputs[0]]
        device = inputs.values.device
        output = self.encoder(self.cmvn(inputs.values), inputs.lengths, mask=masked.mask.to(device))
        hidden = self.project_hid(parts.frames_at(output.frames, masked.mask))
        draw = contrastive.draw_distractors(
            masked.mask, masked.lengths, batch.keys, self.config.contrastive
        ).to(device)
        targets, words, quantized = self._targets(output, masked, temperature)
        values = parts.contrastive_values(self._logits(hidden, targets, words, draw))
        if self.penalised:
            penalty = feature_penalty(self.encoder, output, inputs, self.config.penalty_padding)
            values["penalty"] = penalty if "penalty" in self.weights else penalty.detach()
        if quantized is not None:
            values |= self._usage(quantized, masked, targets)
            values["temperature"] = torch.tensor(temperature if masked.count else 0.0, device=device)
        return values

    def _targets(
        self, output: EncoderOutput, masked: Masked, temperature: float
    ) -> tuple[Tensor, Tensor, Quantized | None]:
        """Targets `(P, F)` of all candidates, a number for each that equal ones share, and the codes."""
        x = self.source(output, masked.candidates(self.config.contrastive), self.training)
        if self.quantizer is None:
            targets = self.project_q(x)
            return targets, torch.unique(targets.detach(), dim=0, return_inverse=True)[1], None
        quantized = self.quantizer(x, temperature)
        return self.project_q(quantized.vectors), self.quantizer.words(quantized.codes), quantized

    def _logits(self, predictions: Tensor, targets: Tensor, words: Tensor, draw: Draw) -> Tensor:
        """`(N, 1 + K)`, the true target first."""
        config, quantizer = self.config.contrastive, self.quantizer
        return parts.comparison_logits(predictions, targets, words, draw, config, quantizer, self.project_q)

    def _usage(self, quantized: Quantized, masked: Masked, targets: Tensor) -> dict[str, Tensor]:
        """Diversity and perplexities over the masked frames."""
        codes, probabilities = quantized.codes, quantized.probabilities
        if self.config.contrastive.negatives_from_everywhere:
            inside = parts.places(masked.mask, masked.valid).to(codes.device)
            codes, probabilities = codes.index_select(0, inside), probabilities.index_select(0, inside)
        return parts.usage_values(
            codes, probabilities, self.quantizer.entries, self.config.diversity, targets
        )

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Nothing: this system has no output to decode."""
        return {}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` encoder frames of inputs of so many samples or feature frames."""
        return self.encoder.output_lengths(lengths)

    def set_update(self, update: int) -> None:
        """Nothing: the temperature is computed from the update that `loss` is given."""

    def advise(self, row: dict[str, float]) -> str | None:
        """Plain words about a collapsed codebook or a loss at chance, once `alarm_after` updates are made."""
        if row["update"] < self.config.alarm_after:
            return None
        quantizer = self.quantizer
        entries = quantizer.groups * quantizer.entries if quantizer is not None else None
        return contrastive_advice(row, self.config.contrastive.total, entries)


def build(config: Config, assets: Assets) -> Wav2Vec2Model:
    """The model, with CMVN statistics for an encoder of features.

    Raises:
        InputError: statistics of another dimension, an encoder that cannot hide frames, or a penalty for
            features that the encoder does not have.
    """
    encoder, cmvn, dim = build_masked_encoder(config.encoder, config.input_dim, assets)
    check_penalty(config.penalty_weight, encoder, config.encoder.name)
    return Wav2Vec2Model(config, encoder, cmvn, dim)
