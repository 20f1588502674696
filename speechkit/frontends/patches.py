"""Patches of video and of features, and how both are scaled: what an audio-visual BERT reads.

A video token is a voxel of 3 frames by 16 x 16 pixels, an audio token 3 frames of log-mel energies; neither
overlaps the next. Statistics are those of all training data, and everything here is computed in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechkit.config import check_range, from_dict, to_dict
from speechkit.errors import InputError
from speechkit.files import hash_json, read_json
from speechkit.layers.cmvn import GlobalCMVN
from speechkit.layers.masks import zero_padding

TUBELET, PATCH, STACK = 3, 16, 3
WHITENING = ("per_bin", "scalar")
LIMIT = 1.2
"""Whitened features are clipped to [-1.2, 1.2]."""


@dataclass
class FrameConfig:
    """Which frames of a clip are kept, and how large."""

    fps: float = 6.0
    """frames a second, each the one seen in the middle of its stretch of time"""
    size: int = 256
    """pixels: the short side becomes so long, and of the long side the middle is kept"""

    def __post_init__(self) -> None:
        check_range("fps", self.fps, 0.01, 1000)
        check_range("size", self.size, 1, 8192)


def config_hash(config: Any) -> str:
    """What stands for a configuration of features beside statistics and labels."""
    return hash_json(to_dict(config))


def read_statistics(path: str | Path, config: Any, verb: str) -> dict[str, list[float]]:
    """Reads `mean` and `std` of cmvn.json or video_stats.json, and compares the configuration they are of.

    Args:
        path: the file.
        config: of the features that will be scaled.
        verb: what makes such a file, for messages.

    Raises:
        InputError: missing, damaged, or of another configuration, by its hash.
    """
    record = read_json(path) if Path(path).is_file() else None
    if record is None:
        raise InputError(f"{path}: no such statistics; {verb} makes them")
    lists = isinstance(record, dict) and all(isinstance(record.get(key), list) for key in ("mean", "std"))
    if not lists or not isinstance(record.get("config"), dict):
        raise InputError(f"{path}: no statistics that tell of which features they are; {verb} makes them")
    try:
        found = config_hash(from_dict(type(config), record["config"]))
    except InputError:  # features of another kind
        found = hash_json(record["config"])
    if found != config_hash(config) or record.get("speaker_cmvn"):
        raise InputError(
            f"{path}: statistics of other features (configuration {found}) than those to be scaled "
            f"({config_hash(config)}); make them again with {verb}, or mend the configuration"
        )
    return {key: [float(value) for value in record[key]] for key in ("mean", "std")}


def video_grid(frames: int, height: int, width: int, tubelet: int = TUBELET, patch: int = PATCH) -> tuple:
    """Tokens along time, rows and columns; InputError when an image is no whole number of patches."""
    if height % patch or width % patch or not height or not width:
        raise InputError(
            f"frames of {height} x {width} pixels cannot be cut into patches of {patch} x {patch}; make them "
            "with another --size (speechkit video)"
        )
    return frames // tubelet, height // patch, width // patch


def patchify_video(x: Tensor, tubelet: int = TUBELET, patch: int = PATCH) -> Tensor:
    """Cuts frames into voxels, ordered by time, then rows, then columns.

    Args:
        x: `(B, T, H, W, 3)` of any type; frames beyond the last whole voxel are left out.
        tubelet: frames of a voxel.
        patch: its height and width in pixels.

    Returns:
        `(B, N, tubelet * patch * patch * 3)` of that type, N = T/tubelet * H/patch * W/patch; within a voxel
        the order is time, row, column, colour.

    Raises:
        InputError: H or W is no multiple of `patch`.
    """
    batch, frames, height, width, colours = x.shape
    t, h, w = video_grid(frames, height, width, tubelet, patch)
    voxels = x[:, : t * tubelet].reshape(batch, t, tubelet, h, patch, w, patch, colours)
    return voxels.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, t * h * w, tubelet * patch**2 * colours)


def unpatchify_video(
    patches: Tensor, grid: Sequence[int], tubelet: int = TUBELET, patch: int = PATCH
) -> Tensor:
    """The frames that voxels were cut from.

    Args:
        patches: `(B, N, tubelet * patch * patch * 3)`.
        grid: tokens along time, rows and columns, N in all.
        tubelet: frames of a voxel.
        patch: its height and width in pixels.

    Returns:
        `(B, T, H, W, 3)`.
    """
    t, h, w = grid
    voxels = patches.reshape(len(patches), t, h, w, tubelet, patch, patch, -1)
    return voxels.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(patches), t * tubelet, h * patch, w * patch, -1)


def stack_audio(
    features: Tensor, lengths: Tensor, frames: int = STACK, pad: bool = False
) -> tuple[Tensor, Tensor]:
    """Stacks neighbouring frames into one token, without overlap.

    Args:
        features: `(B, T, F)`.
        lengths: `(B,)` valid frames.
        frames: of a token.
        pad: fill the last, incomplete token with zeros and count it; else it is dropped. It is incomplete
            where `frames` does not divide `lengths`.

    Returns:
        `(B, T', frames * F)` and `(B,)` tokens: lengths / frames rounded down, or up with `pad`.
    """
    if pad:
        features = zero_padding(features, lengths)
        features = nn.functional.pad(features, (0, 0, 0, -features.size(1) % frames))
        lengths = lengths + frames - 1
    count = features.size(1) // frames
    stacked = features[:, : count * frames].reshape(len(features), count, frames * features.size(2))
    return stacked, torch.div(lengths, frames, rounding_mode="floor")


class Whitening(nn.Module):
    """Features less their global mean, divided by their global deviation, then clipped.

    Clipping takes away the outer 23 % of a normal distribution; the targets are made of clipped features too.

    Args:
        statistics: `mean` and `std`, F numbers each: the content of cmvn.json.
        whiten: "per_bin", or "scalar" for one mean and one deviation of all bins together.
        limit: of the result.
    """

    def __init__(self, statistics: Mapping[str, Any], whiten: str = "per_bin", limit: float = LIMIT) -> None:
        super().__init__()
        mean, std = list(statistics["mean"]), list(statistics["std"])
        if whiten == "scalar":
            centre = sum(mean) / len(mean)
            power = sum(s**2 + (m - centre) ** 2 for m, s in zip(mean, std)) / len(mean)
            mean, std = [centre] * len(mean), [math.sqrt(power)] * len(std)
        self.cmvn, self.limit = GlobalCMVN(mean, std), limit

    def forward(self, x: Tensor) -> Tensor:
        """`(..., F)` to values in [-limit, limit]."""
        return self.cmvn(x).clamp(-self.limit, self.limit)


class PixelScaling(nn.Module):
    """Pixels to [0, 1], then each colour less its global mean and divided by its global deviation.

    Args:
        statistics: `mean` and `std` of the three colours in [0, 1]: the content of video_stats.json.
    """

    def __init__(self, statistics: Mapping[str, Any]) -> None:
        super().__init__()
        self.colours = GlobalCMVN(list(statistics["mean"]), list(statistics["std"]))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., 3)` uint8 to floating point of the same shape."""
        return self.colours(x.to(self.colours.mean.dtype) / 255)
