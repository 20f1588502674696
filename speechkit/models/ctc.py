"""Recognition by connectionist temporal classification: features, encoder, one linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from speechkit.config import check_range, kind, load_kind
from speechkit.data.batch import Batch
from speechkit.encoders import ENCODERS, EncoderOutput
from speechkit.errors import InputError
from speechkit.frontends import specaugment
from speechkit.layers.cmvn import GlobalCMVN
from speechkit.losses.ctc import ctc_loss
from speechkit.models.assets import Assets


@dataclass
class Config:
    """A CTC system."""

    name: str = "ctc"
    """The model's kind."""

    input_dim: int | None = None
    """Feature dimension; null takes it from the CMVN statistics, or 80 without any."""

    encoder: Any = kind(ENCODERS, "conformer")
    """The encoder, chosen by its `name`."""

    specaugment: specaugment.Config | None = None
    """Masks and time warp in training; null for none."""

    dropout: float = 0.0
    """Probability of dropping a value before the output layer."""

    normaliser: Literal["utterances", "tokens"] = "utterances"
    """What the CTC term is divided by."""

    def __post_init__(self) -> None:
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        if self.input_dim is not None:
            check_range("input_dim", self.input_dim, 1)


class CtcModel(nn.Module):
    """Normalised features through the encoder to `(B, T, V)` log-probabilities.

    Args:
        config: see `Config`.
        input_dim: F.
        vocab_size: V, the blank (id 0) included.
        cmvn: normalises the features, or `nn.Identity()`.
    """

    requires = ("features", "tokens")
    inputs = ("features",)

    def __init__(self, config: Config, input_dim: int, vocab_size: int, cmvn: nn.Module) -> None:
        super().__init__()
        self.weights = {"ctc": 1.0}
        self.normaliser = config.normaliser
        self.cmvn, self.input_dim = cmvn, input_dim
        self.specaugment = specaugment.SpecAugment(config.specaugment) if config.specaugment else None
        self.encoder = load_kind(ENCODERS, config.encoder.name).build(config.encoder, input_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.encoder.output_dim, vocab_size)

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
        output = self.encode_frames(batch)
        logits = self.head(self.dropout(output.frames))
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return {"ctc": (logits.log_softmax(dim=-1), output.lengths)}

    def encode_frames(self, batch: Batch) -> EncoderOutput:
        """Normalisation, SpecAugment in training, and the encoder."""
        features = batch["features"]
        x = self.cmvn(features.values)
        if self.specaugment is not None:
            x = self.specaugment(x, features.lengths, batch.keys)
        return self.encoder(x, features.lengths)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` frames of log-probabilities for inputs of so many feature frames."""
        return self.encoder.output_lengths(lengths)

    def set_update(self, update: int) -> None:
        """Nothing in this system follows a schedule."""


def build(config: Config, assets: Assets) -> CtcModel:
    """The model for a tokenizer and its CMVN statistics.

    Raises:
        InputError: no tokenizer, or statistics of another dimension than `input_dim`.
    """
    if assets.tokenizer is None:
        raise InputError("model ctc: needs a tokenizer; give --tokenizer")
    if assets.cmvn is None:
        return CtcModel(config, config.input_dim or 80, len(assets.tokenizer.vocab), nn.Identity())
    mean, std = assets.cmvn["mean"], assets.cmvn["std"]
    if config.input_dim not in (None, len(mean)):
        raise InputError(
            f"model ctc: input_dim={config.input_dim}, but the CMVN statistics have {len(mean)} dimensions; "
            "make the statistics again from these features or leave input_dim out"
        )
    return CtcModel(config, len(mean), len(assets.tokenizer.vocab), GlobalCMVN(mean, std))
