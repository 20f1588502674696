"""Recognition by connectionist temporal classification: features or samples, encoder, one linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from speechkit.config import check_range, kind
from speechkit.data.batch import Batch
from speechkit.encoders import ENCODERS, EncoderOutput, fine_tuning
from speechkit.errors import InputError
from speechkit.frontends import specaugment
from speechkit.losses.ctc import ctc_loss
from speechkit.models import deep_fusion
from speechkit.models.assets import Assets
from speechkit.models.inputs import build_encoder


@dataclass
class Config:
    """A CTC system."""

    name: str = "ctc"
    """The model's kind."""

    input_dim: int | None = None
    """Feature dimension; null takes it from the CMVN statistics, or 80 without any. Samples have none."""

    encoder: Any = kind(ENCODERS, "conformer")
    """The encoder, chosen by its `name`."""

    specaugment: specaugment.Config | None = None
    """Masks and time warp of features in training; null for none."""

    clip: float | None = None
    """Normalised features are clipped to [-clip, clip]; null leaves them as they are."""

    fusion: deep_fusion.Config | None = None
    """An AV-BERT whose tokens every block of the encoder reads; null for none."""

    masking: fine_tuning.Masking | None = None
    """Masks inside the encoder in training, for pre-trained ones; null for none."""

    layer: int | None = None
    """Block, from 1, whose output the output layer reads; null for the last one with its norm."""

    dropout: float = 0.0
    """Probability of dropping a value before the output layer."""

    normaliser: Literal["utterances", "tokens"] = "utterances"
    """What the CTC term is divided by."""

    def __post_init__(self) -> None:
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        if self.input_dim is not None:
            check_range("input_dim", self.input_dim, 1)
        if self.clip is not None:
            check_range("clip", self.clip, 1e-3)
        blocks = getattr(self.encoder, "layers", 0)
        if self.layer is not None and not 1 <= self.layer <= blocks:
            raise ValueError(f"layer={self.layer}: the {self.encoder.name} encoder has {blocks} blocks")
        if self.layer is not None and set(getattr(self.encoder, "strides", [])) - {1}:
            raise ValueError(f"layer={self.layer}: blocks of several strides have frames of several lengths")


class CtcModel(nn.Module):
    """Samples or normalised features through the encoder to `(B, T, V)` log-probabilities.

    Args:
        config: see `Config`.
        encoder: of `speechkit.encoders.ENCODERS`.
        vocab_size: V, the blank (id 0) included.
        input_dim: F, None for an encoder of samples.
        cmvn: normalises features, or `nn.Identity()`.
    """

    def __init__(
        self, config: Config, encoder: nn.Module, vocab_size: int, input_dim: int | None, cmvn: nn.Module
    ) -> None:
        super().__init__()
        self.inputs, self.requires = (encoder.takes,), (encoder.takes, "tokens")
        self.weights = {"ctc": 1.0}
        self.normaliser, self.masking, self.layer = config.normaliser, config.masking, config.layer
        self.cmvn, self.input_dim, self.clip = cmvn, input_dim, config.clip
        self.fusion: deep_fusion.DeepFusion | None = None
        self.specaugment = specaugment.SpecAugment(config.specaugment) if config.specaugment else None
        self.encoder = encoder
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(encoder.output_dim, vocab_size)
        if self.layer is not None:
            encoder.keep_hidden_states = True
            for name, parameter in encoder.named_parameters():
                if (fine_tuning.block_of(name) or 0) >= self.layer:
                    parameter.requires_grad_(False)  # what stands above the layer has no gradient

    def counts(self, batch: Batch) -> dict[str, int]:
        """The normaliser of the CTC term: utterances or tokens of the batch."""
        return {"ctc": len(batch) if self.normaliser == "utterances" else int(batch["tokens"].lengths.sum())}

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """The CTC losses of the batch as a sum, with its count; infinite if a target cannot be aligned."""
        log_probs, lengths = self.encode(batch)["ctc"]
        tokens = batch["tokens"]
        losses = ctc_loss(log_probs, lengths, tokens.values, tokens.lengths)
        return {"ctc": (losses.sum(), self.counts(batch)["ctc"])}

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """`{"ctc": (log_probs (B, T, V) fp32, lengths (B,))}`; augmented in training only."""
        frames, lengths = self.hear(batch)
        return {"ctc": (log_softmax(self.head(self.dropout(frames))), lengths)}

    def hear(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The frames `(B, T, D)` that output layers read, and `(B,)` how many."""
        output = self.encode_frames(batch)
        states = output.hidden_states if self.layer is not None else None
        return output.frames if states is None else states[self.layer], output.lengths

    def encode_frames(self, batch: Batch) -> EncoderOutput:
        """Normalisation, SpecAugment and masks in training, and the encoder, with what it reads beside."""
        field, context = batch[self.inputs[0]], None
        plain = x = self.cmvn(field.values)
        if self.clip is not None:
            plain = x = x.clamp(-self.clip, self.clip)
        if self.specaugment is not None:
            x = self.specaugment(x, field.lengths, batch.keys)
        if self.fusion is not None:
            read = x if self.fusion.config.augment_avbert_input else plain
            context = self.fusion(read, field.lengths, batch.ids)
        return fine_tuning.run(self.encoder, x, field.lengths, batch.keys, self.masking, context)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` frames of log-probabilities for inputs of so many feature frames, or samples."""
        return self.encoder.output_lengths(lengths)

    def set_update(self, update: int) -> None:
        """Nothing in this system follows a schedule."""


def log_softmax(logits: Tensor) -> Tensor:
    """`(..., V)` log-probabilities in fp32, or fp64, under autocast too."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)


def build(config: Config, assets: Assets) -> CtcModel:
    """The model for a tokenizer and its CMVN statistics, which an encoder of samples does not use.

    Raises:
        InputError: no tokenizer, statistics of another dimension than `input_dim`, or options that this
            encoder has no use for.
    """
    if assets.tokenizer is None:
        raise InputError("model ctc: needs a tokenizer; give --tokenizer")
    encoder, cmvn, dim = build_listener(config, assets)
    model = CtcModel(config, encoder, len(assets.tokenizer.vocab), dim, cmvn)
    return deep_fusion.fuse(model, config, assets)


def build_listener(config: Config, assets: Assets) -> tuple[nn.Module, nn.Module, int | None]:
    """The encoder of a system that `deep_fusion.fuse` is called with; see `build_encoder`."""
    settings = deep_fusion.with_context(config.encoder, config.fusion, assets)
    parts = build_encoder(settings, config.input_dim, assets)
    check_options(config, parts[0], fuses=True)
    return parts


def check_options(config: Config, encoder: nn.Module, fuses: bool = False) -> None:
    """Raises InputError for options that this encoder, or a system that does not fuse, has no use for."""
    name = config.encoder.name
    if config.fusion is not None and not (fuses and encoder.takes == "features"):
        raise InputError(
            f"model.fusion: is for ctc, transducer and attention over features, not for {config.name} over "
            f"{encoder.takes}; leave it out"
        )
    if encoder.takes != "features":
        for option in ("specaugment", "input_dim", "clip"):
            if getattr(config, option) is not None:
                raise InputError(
                    f"model.{option}: is for features, and the {name} encoder takes {encoder.takes}; "
                    "leave it out (model.masking hides frames and channels inside the encoder)"
                )
    masking = config.masking
    if masking is not None and masking.time is not None and not fine_tuning.has_mask_embedding(encoder):
        raise InputError(
            f"model.masking.time: the {name} encoder was built without a mask embedding; "
            "set model.encoder.mask_embedding=true, or leave it out"
        )
