"""What of each clip AV-BERT reads, what is hidden of that, and what of that is predicted.

All of it is decided on the CPU by keys and lengths, so that the number of predictions is known beforehand.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from speechkit.data.batch import Batch
from speechkit.frontends.patches import video_grid
from speechkit.hashing import mix, uniform
from speechkit.layers.av_mask import Stage, draw_mask
from speechkit.models.av_bert_config import Config

AUDIO, VIDEO, CROP, DROP, WHICH = 0xA7D0, 0x71DE, 0xC209, 0xD209, 0x3C1D
"""Salts of the draws."""


class Tokens(NamedTuple):
    """One modality of a batch; N is the largest number of tokens.

    Attributes:
        lengths: `(B,)` tokens that are read.
        hidden: `(B, N)` bool, those that are masked.
        predicted: `(B, N)` bool, those of them that have a label.
        first: `(B,)` number of the first token that is read, in the whole clip.
    """

    lengths: Tensor
    hidden: Tensor
    predicted: Tensor
    first: Tensor


class Stretch(NamedTuple):
    """Which slices of time of the video are read.

    Attributes:
        image: rows and columns of patches.
        starts: `(B,)` number of the first slice.
        kept: `(B,)` how many.
        slices: `(B,)` of the whole clip.
    """

    image: tuple[int, int]
    starts: Tensor
    kept: Tensor
    slices: Tensor


class Clips(NamedTuple):
    """What is drawn for a batch; None for video that no clip has."""

    audio: Tokens
    video: Tokens | None
    stretch: Stretch | None


def draw_clips(batch: Batch, config: Config, now: Stage, training: bool) -> Clips:
    """Draws for every clip.

    Args:
        batch: with `features`, perhaps `video`, and their labels.
        config: see there.
        now: width and probability of masks.
        training: whether modalities are dropped.
    """
    audio = batch["features"].lengths.cpu() // config.encoder.audio_patch
    stretch = None
    if config.encoder.modalities == "audio_video" and "video" in batch:
        stretch = _stretch(batch, config)
        if training and config.modality_dropout:
            audio, stretch = _drop(audio, stretch, config, batch.keys)
    hidden = draw_mask(audio, 1, now, config.mask, batch.keys, AUDIO)
    heard = _tokens(batch, "kmeans_audio", audio, hidden, torch.zeros_like(audio))
    if stretch is None or not int(stretch.kept.sum()):
        return Clips(heard, None, None)
    patches = stretch.image[0] * stretch.image[1]
    hidden = draw_mask(stretch.kept, patches, now, config.mask, batch.keys, VIDEO)
    seen = _tokens(batch, "kmeans_video", stretch.kept * patches, hidden, stretch.starts * patches)
    return Clips(heard, seen, stretch)


def _tokens(batch: Batch, labels: str, lengths: Tensor, hidden: Tensor, first: Tensor) -> Tokens:
    there = batch[labels].lengths.cpu() if labels in batch else torch.zeros_like(lengths)
    labelled = first[:, None] + torch.arange(hidden.size(1)) < there[:, None]
    return Tokens(lengths, hidden, hidden & labelled, first)


def _stretch(batch: Batch, config: Config) -> Stretch:
    """A random stretch of as many slices as may be read."""
    frames, height, width = batch["video"].values.shape[1:4]
    _, rows, columns = video_grid(frames, height, width, config.encoder.tubelet, config.encoder.patch)
    slices = batch["video"].lengths.cpu() // config.encoder.tubelet
    kept = slices
    if config.max_video_tokens is not None:
        kept = slices.clamp(max=max(1, config.max_video_tokens // (rows * columns)))
    draws = torch.from_numpy(uniform(mix(batch.keys.numpy(), CROP)))
    starts = (draws * (slices - kept + 1)).long()
    return Stretch((rows, columns), starts, kept, slices)


def _drop(audio: Tensor, stretch: Stretch, config: Config, keys: Tensor) -> tuple[Tensor, Stretch]:
    """Takes one modality away from some of the clips that have both."""
    drop, which = (torch.from_numpy(uniform(mix(keys.numpy(), salt))) for salt in (DROP, WHICH))
    alone = (drop < config.modality_dropout) & (audio > 0) & (stretch.kept > 0)
    deaf = alone & (which < config.audio_dropout)
    return audio.masked_fill(deaf, 0), stretch._replace(kept=stretch.kept.masked_fill(alone & ~deaf, 0))
