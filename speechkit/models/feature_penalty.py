"""The mean square of features of samples before their norm, a loss of pre-training (wav2vec 2.0, HuBERT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.data.batch import Padded
from speechkit.encoders import EncoderOutput
from speechkit.errors import InputError


def check_penalty(weight: float | None, encoder: nn.Module, name: str) -> None:
    """Raises InputError for a penalty on features that the encoder, called `name`, does not have."""
    if weight and encoder.takes != "speech":
        raise InputError(
            f"model.penalty_weight={weight}: is for encoders of samples; the {name} encoder has no "
            "features before a norm; leave it out"
        )


def penalised_frames(encoder: nn.Module, inputs: Padded, padding: bool) -> int:
    """The number of frames that the penalty is a mean over.

    Args:
        encoder: of samples.
        inputs: `(B, S)` samples.
        padding: count frames of padding too.
    """
    if padding:
        return len(inputs.values) * int(encoder.output_lengths(torch.tensor([inputs.values.size(1)])))
    return int(encoder.output_lengths(inputs.lengths.cpu()).sum())


def feature_penalty(encoder: nn.Module, output: EncoderOutput, inputs: Padded, padding: bool) -> Tensor:
    """Sum over frames of the mean square over channels, in fp32 (or fp64).

    Args:
        encoder: of samples.
        output: what it made of them, with `local_raw`.
        inputs: `(B, S)` samples.
        padding: sum over frames of padding too; they are computed for this.
    """
    raw = output.local_raw
    if padding and int(inputs.lengths.min()) < inputs.values.size(1):
        raw = encoder.convolve_padded(inputs.values, inputs.lengths)
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    return raw.square().sum() / raw.size(-1)  # what is padding in local_raw is 0
