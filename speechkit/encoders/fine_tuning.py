"""What systems on top of an encoder share: masks while fine-tuning, frozen encoders, counting its blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechkit.encoders import EncoderOutput
from speechkit.layers import span_mask
from speechkit.layers.span_mask import channel_mask

TIME, CHANNELS = 0x71AE, 0xC4A7
"""Salts that keep the draws of the two masks apart, and from those of pre-training."""


@dataclass
class Channels(span_mask.Config):
    """Spans of channels of the first block's input, zeroed over the whole utterance."""

    probability: float = 0.25
    """Spans x length / channels, before overlaps: `mask_channel_prob` of fairseq, `mask_feature_prob` of
    Hugging Face."""

    length: int = 64
    """Channels of a span."""

    min_spans: int = 0
    """Fewest spans of an utterance."""


@dataclass
class Masking:
    """Masks in fine-tuning (wav2vec 2.0: Baevski et al., 2020, section 4.3); never in evaluation."""

    time: span_mask.Config | None = None
    """Spans of frames that the mask embedding replaces; null for none."""

    channels: Channels | None = None
    """Spans of channels that are zeroed; null for none."""


def has_mask_embedding(encoder: nn.Module) -> bool:
    """Whether the encoder can replace frames."""
    names = ("mask_embedding", "masked_spec_embed")
    return any(getattr(encoder, name, None) is not None for name in names)


def run(
    encoder: nn.Module,
    x: Tensor,
    lengths: Tensor,
    keys: Tensor,
    masking: Masking | None = None,
    context: tuple[Tensor, Tensor] | None = None,
) -> EncoderOutput:
    """Encodes, with masks in training, and without a graph where nothing in the encoder learns.

    A frozen encoder costs no memory for its backward pass then; its dropout and LayerDrop stay as they are.

    Args:
        encoder: one of `speechkit.encoders.ENCODERS`.
        x: its input, `(B, T, F)` or `(B, S)`.
        lengths: `(B,)` of x.
        keys: `(B,)` int64 on the CPU, which the masks are drawn from.
        masking: what to hide in training, or None.
        context: `(B, M, C)` that the blocks read beside, and `(B,)` lengths; or None.
    """
    masks = {} if context is None else {"context": context[0], "context_lengths": context[1]}
    if encoder.training and masking is not None:
        if masking.time is not None:
            frames = encoder.output_lengths(lengths)
            masks["mask"] = span_mask.span_mask(frames, masking.time, keys, TIME)
        if masking.channels is not None:
            width = getattr(encoder, "masked_dim", encoder.output_dim)
            hidden = channel_mask(keys, width, masking.channels, CHANNELS)
            masks["channel_mask"] = hidden.to(lengths.device)
    learns = x.requires_grad or any(parameter.requires_grad for parameter in encoder.parameters())
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        return encoder(x, lengths, **masks)


_BLOCK = re.compile(r"(?:encoder\.)?(?:layers|blocks)\.(\d+)\.")


def block_of(name: str) -> int | None:
    """Number, from 0, of the block that an encoder's parameter belongs to; None outside the blocks.

    Args:
        name: within the encoder, such as `blocks.3.norm_out.bias` or `encoder.layers.3.layer_norm.bias`.
    """
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


def depth(model: nn.Module, name: str) -> int | None:
    """How far from the input a model's parameter is.

    Args:
        model: has its encoder as `encoder`.
        name: of a parameter of the model.

    Returns:
        -1 before the blocks of the encoder, the number of its block, and None after the blocks or outside
        the encoder.
    """
    place, _, inner = name.partition(".")
    if place != "encoder":
        return None
    block = block_of(inner)
    if block is not None:
        return block
    last = getattr(getattr(model.encoder, "encoder", None), "norm_last", False)
    after = inner.startswith("norm.") or (last and inner.startswith("encoder.layer_norm."))
    return None if after else -1
