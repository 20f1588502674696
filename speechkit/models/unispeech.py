"""UniSpeech (Wang et al., 2021): CTC on labelled speech, contrastive learning on all, and a shared codebook.

With c the outputs for masked input and q the projected codewords of the unmasked local features, labelled
speech costs `alpha CTC(c') + (1 - alpha) (contrastive(c, q) + w diversity)` and unlabelled speech
`contrastive(c, q) + w diversity` (eq. 6), where each frame of c' is q with probability r, else c (eq. 7).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.encoders import EncoderOutput
from speechkit.errors import InputError
from speechkit.hashing import mix, uniform
from speechkit.layers.gumbel_quantizer import GumbelQuantizer
from speechkit.losses.ctc import ctc_loss
from speechkit.metrics.codebook import contrastive_advice
from speechkit.models import contrastive_parts as parts
from speechkit.models.assets import Assets
from speechkit.models.contrastive_parts import Masked
from speechkit.models.ctc import log_softmax
from speechkit.models.feature_penalty import check_penalty
from speechkit.models.inputs import build_masked_encoder
from speechkit.models.unispeech_codes import Coded, compare
from speechkit.models.unispeech_config import Config
from speechkit.models.unispeech_kinds import (
    UNLABELLED,
    WATCHED,
    Kind,
    contrastive_terms,
    kinds_of,
    labelled_rows,
    penalty_of,
)

__all__ = ["WATCHED", "Coded", "Config", "UniSpeechModel", "build"]

SALT = 0x9E7A
"""Keeps the draws of replaced frames apart from others of the same key."""


class UniSpeechModel(nn.Module):
    """Encoder, codebook, and the heads that compare and recognise, named as in Hugging Face's model (but
    for `head`, its `ctc_proj`).

    Unlike wav2vec 2.0 the projection `project_hid` is of targets, up to the encoder's width D, so that a
    codeword can stand where an output does. An utterance without tokens is unlabelled; a batch of such ones
    has no field `tokens`.

    Terms: `contrastive` and `diversity` (times the masked frames; on labelled speech times 1 - alpha), `ctc`,
    and `penalty` where it has a weight. Watched only: `ctc_per_token`, `temperature`, and `WATCHED`, of
    unlabelled speech under names of its own.

    Args:
        config: see `Config`.
        encoder: of `speechkit.encoders.ENCODERS`.
        cmvn: normalises features, or `nn.Identity()`.
        input_dim: F of features; None for samples.
        vocab_size: V, the blank (id 0) included; not used when `alpha` is 0.
    """

    def __init__(
        self, config: Config, encoder: nn.Module, cmvn: nn.Module, input_dim: int | None, vocab_size: int
    ) -> None:
        super().__init__()
        self.config, self.encoder, self.cmvn = config, encoder, cmvn
        self.inputs = (encoder.takes,)
        self.optional = ("tokens",) if config.alpha else ()
        self.requires = (*self.inputs, *self.optional)
        self.mixes = config.mix == "mixed"
        if input_dim is not None:
            self.input_dim = input_dim
        encoder.keep_local = True
        weights = {"ctc": config.alpha, "penalty": config.penalty_weight or 0.0}
        weights = {name: weight for name, weight in weights.items() if weight}
        self.weights = {"contrastive": 1.0, "diversity": config.diversity_weight, **weights}
        self.source = parts.TargetSource.of(config, encoder)
        code_dim, dim = config.quantizer.dim or config.projection_dim, encoder.output_dim
        self.quantizer = GumbelQuantizer(config.quantizer, encoder.local_dim, code_dim)
        self.project_q = nn.Linear(code_dim, config.projection_dim)
        self.project_hid = nn.Linear(config.projection_dim, dim)
        self.q_norm = nn.LayerNorm(dim) if config.q_layernorm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(dim, vocab_size) if config.alpha else None

    def kinds(self, batch: Batch) -> list[Kind]:
        """The labelled and the unlabelled speech of a batch, where it has them."""
        return kinds_of(batch, self.config.alpha)

    def labelled(self, batch: Batch) -> Tensor | None:
        """`(B,)` bool on the CPU: which utterances CTC learns from; None where there is none."""
        rows = labelled_rows(batch) if self.head is not None else None
        return rows if rows is not None and rows.any() else None

    def masked(self, batch: Batch) -> Masked:
        """Draws the mask; an utterance with a single masked frame has no distractor and is left unmasked."""
        return parts.draw_mask(self.encoder, self.inputs[0], batch, self.config)

    def replaced(self, batch: Batch, masked: Masked) -> Tensor | None:
        """`(B, T)` bool on the CPU: frames whose codewords CTC is given; None where none are drawn."""
        rate, training = self.config.replace, self.training or self.config.replace_eval
        labelled = self.labelled(batch)
        if not (rate and training) or labelled is None:
            return None
        spans = np.arange(masked.mask.size(1)) // self.config.replace_span
        draws = uniform(mix(batch.keys.numpy(), SALT)[:, None], spans)
        return torch.from_numpy(draws < rate) & masked.valid & labelled[:, None]

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked frames, what CTC is divided by, and 1 for perplexities and the temperature."""
        return self._counts(batch, self.masked(batch))

    def _counts(self, batch: Batch, masked: Masked) -> dict[str, int]:
        told = dict.fromkeys(("", UNLABELLED) if self.optional else ("",), 0)
        told |= {kind.suffix: kind.count(masked) for kind in self.kinds(batch)}
        counts = {"contrastive": masked.count, "diversity": masked.count}
        counts["temperature"] = int(any(told.values()))
        if "penalty" in self.weights:
            counts["penalty"] = masked.penalised
        for suffix, here in told.items():
            counts |= {f"{name}{suffix}": here for name in WATCHED[:2]}
            counts |= {f"{name}{suffix}": int(here > 0) for name in WATCHED[2:]}
        if self.head is not None:
            tokens = int(batch["tokens"].lengths.sum()) if "tokens" in batch else 0
            utterances = int(labelled_rows(batch).sum())
            norms = {"masked": masked.count, "tokens": tokens, "utterances": utterances}
            counts |= {"ctc": norms[self.config.ctc_norm], "ctc_per_token": tokens}
        return counts

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """The terms that a batch has, as a sum and its normaliser; `update` counts from 0.

        In training CTC sees what the contrastive terms see, masked and with replaced frames (or, with
        `ctc_unmasked_pass`, unmasked); in evaluation all of the speech.
        """
        masked = self.masked(batch)
        counts = self._counts(batch, masked)
        values = self._values(batch, masked, self.config.quantizer.temperature(update))
        return {name: (value, counts[name]) for name, value in values.items()}

    def _values(self, batch: Batch, masked: Masked, temperature: float) -> dict[str, Tensor]:
        labelled, config, values = self.labelled(batch), self.config, {}
        compared = [kind for kind in self.kinds(batch) if kind.share]
        unmasked = labelled is not None and (config.ctc_unmasked_pass or not self.training)
        replaced = self.replaced(batch, masked)
        output = self._hear(batch, masked.mask if compared or not unmasked else None)
        own, pool = self._code_all(output, masked, replaced, bool(compared), temperature)
        if compared:
            found = compare(output.frames, masked, batch.keys, own, pool, self)
            values |= contrastive_terms(found, masked, compared, config.diversity, self.quantizer.entries)
            told = temperature if any(kind.count(masked) for kind in compared) else 0.0
            values["temperature"] = torch.tensor(told, device=output.frames.device)
            if "penalty" in self.weights:
                values["penalty"] = penalty_of(self, output, batch[self.inputs[0]], compared)
        if labelled is not None:
            heard = self._hear(batch) if unmasked and compared else output
            frames = heard.frames if replaced is None else self.replace(heard.frames, replaced, pool)
            ctc = self._ctc(batch, frames, heard.lengths, labelled)
            values |= {"ctc": ctc, "ctc_per_token": ctc.detach()}
        return values

    def _ctc(self, batch: Batch, frames: Tensor, lengths: Tensor, labelled: Tensor) -> Tensor:
        """Sum over the labelled utterances."""
        tokens = batch["tokens"]
        columns = (frames, lengths, tokens.values, tokens.lengths)
        if not labelled.all():
            index = labelled.nonzero().squeeze(1).to(frames.device)
            columns = (column.index_select(0, index) for column in columns)
        frames, *rest = columns
        return ctc_loss(self._log_probs(frames), *rest).sum()

    def _hear(self, batch: Batch, mask: Tensor | None = None) -> EncoderOutput:
        inputs = batch[self.inputs[0]]
        x = self.cmvn(inputs.values)
        return self.encoder(x, inputs.lengths, mask=None if mask is None else mask.to(x.device))

    def _log_probs(self, frames: Tensor) -> Tensor:
        return log_softmax(self.head(self.dropout(frames)))

    def code(self, output: EncoderOutput, chosen: Tensor, temperature: float = 1.0) -> Coded:
        """Codewords of the chosen frames, `(B, T)` bool on the CPU, of an encoder's output."""
        quantized = self.quantizer(self.source(output, chosen, self.training), temperature)
        words = self.quantizer.words(quantized.codes)
        return Coded(chosen, self.project(quantized.vectors), quantized, words)

    def project(self, vectors: Tensor) -> Tensor:
        """Codewords `(..., G)` to the space of the encoder's outputs, `(..., D)`."""
        return self.project_hid(self.project_q(vectors))

    def _code_all(
        self,
        output: EncoderOutput,
        masked: Masked,
        replaced: Tensor | None,
        compared: bool,
        temperature: float,
    ) -> tuple[Coded | None, Coded | None]:
        """Codewords of the masked frames, and of all that are distractors or replace outputs."""
        nothing = torch.zeros_like(masked.mask)
        asked = nothing if replaced is None else replaced
        if not compared:
            return None, self.code(output, asked, temperature) if replaced is not None else None
        twice = self.config.quantizer_calls == 2
        own = self.code(output, masked.mask, temperature) if twice else None
        if not twice or self.config.contrastive.negatives_from_everywhere:
            asked = asked | masked.candidates(self.config.contrastive)
        pool = self.code(output, asked, temperature) if not twice or asked.any() else own
        return own or pool, pool

    def replace(self, frames: Tensor, replaced: Tensor, coded: Coded) -> Tensor:
        """Outputs `(B, T, D)` with codewords in the place of the replaced ones, `(B, T)` bool on the CPU."""
        index = replaced.flatten().nonzero().squeeze(1).to(frames.device)
        codewords = self.q_norm(coded.targets.index_select(0, coded.places(replaced))).to(frames.dtype)
        return frames.flatten(0, 1).index_copy(0, index, codewords).view_as(frames)

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """`{"ctc": (log_probs (B, T, V) fp32, lengths (B,))}` of all the speech; nothing without a head."""
        if self.head is None:
            return {}
        output = self._hear(batch)
        return {"ctc": (self._log_probs(output.frames), output.lengths)}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` encoder frames of inputs of so many samples or feature frames."""
        return self.encoder.output_lengths(lengths)

    def set_update(self, update: int) -> None:
        """Nothing: the temperature is computed from the update that `loss` is given."""

    def advise(self, row: dict[str, float]) -> str | None:
        """Plain words about a collapsed codebook or a loss at chance, once `alarm_after` updates are made."""
        if row["update"] < self.config.alarm_after:
            return None
        entries = self.quantizer.groups * self.quantizer.entries
        for kind, what in (("", ""), (UNLABELLED, "unlabelled speech: ")):
            if row.get(f"code_perplexity{kind}"):
                seen = {name: row[f"{name}{kind}"] for name in WATCHED}
                advice = contrastive_advice(seen, self.config.contrastive.total, entries)
                if advice:
                    return what + advice
        return None


def build(config: Config, assets: Assets) -> UniSpeechModel:
    """The model for a tokenizer of phones, with CMVN statistics for an encoder of features.

    Raises:
        InputError: no tokenizer, statistics of another dimension, an encoder that cannot hide frames, or a
            penalty for features that the encoder does not have.
    """
    if config.alpha and assets.tokenizer is None:
        raise InputError("model unispeech: needs a tokenizer of phones; give --tokenizer, or model.alpha=0")
    encoder, cmvn, dim = build_masked_encoder(config.encoder, config.input_dim, assets)
    check_penalty(config.penalty_weight, encoder, config.encoder.name)
    vocab = len(assets.tokenizer.vocab) if assets.tokenizer is not None else 0
    return UniSpeechModel(config, encoder, cmvn, dim, vocab)
