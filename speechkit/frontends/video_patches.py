"""Video tokens of an audio-visual BERT as features: scaled voxels of the frames that `speechkit video` kept.

With these in `speechkit kmeans`, clusters are of exactly what the model will read. The methods are those of
an extractor of audio, with frames of video in the place of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.frontends.patches import (
    PATCH,
    TUBELET,
    FrameConfig,
    PixelScaling,
    config_hash,
    patchify_video,
    read_statistics,
    video_grid,
)


@dataclass
class Config(FrameConfig):
    """Voxels of 3 frames by 16 x 16 pixels."""

    name: str = "video_patches"
    """the kind of features"""
    tubelet: int = TUBELET
    """frames of a token"""
    patch: int = PATCH
    """height and width of a token in pixels"""
    norm: Literal["none", "zscore"] = "none"
    """zscore: mean 0 and deviation 1 within each token, for clusters only"""
    statistics: str = ""
    """video_stats.json of the training set, read once: what counts are the values"""
    mean: list[float] = field(default_factory=list)
    """of each colour; filled from `statistics`"""
    std: list[float] = field(default_factory=list)
    """standard deviation of each colour; filled from `statistics`"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("tubelet", self.tubelet, 1)
        check_range("patch", self.patch, 1)
        video_grid(0, self.size, self.size, self.tubelet, self.patch)
        if self.statistics:
            found = read_statistics(self.statistics, FrameConfig(self.fps, self.size), "speechkit video")
            self.mean, self.std, self.statistics = found["mean"], found["std"], ""
        if len(self.mean) != 3 or len(self.std) != 3:
            raise InputError(
                f"{self.name}: {len(self.mean)} means and {len(self.std)} deviations for 3 colours; give "
                "statistics=video_stats.json (speechkit video)"
            )

    @property
    def hash(self) -> str:
        """Of all that a token depends on, statistics included."""
        return config_hash(self)


class VideoPatches:
    """`(T, size, size, 3)` uint8 to `(N, tubelet * patch * patch * 3)` tokens.

    Args:
        config: see `Config`.

    Attributes:
        dim: values a token.
        rate: frames a second.
        slice: tokens of one slice of time.
        window: frames of a token.
        shift: frames between tokens, on average: a slice of time has many.
        middle: frames from the beginning to the middle of the first token.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.scaling = PixelScaling({"mean": config.mean, "std": config.std})
        self.dim, self.rate = config.tubelet * config.patch**2 * 3, config.fps
        self.slice = (config.size // config.patch) ** 2
        self.window, self.shift, self.middle = config.tubelet, config.tubelet / self.slice, config.tubelet / 2

    def frames(self, count: int) -> int:
        """How many tokens come out of so many frames."""
        return count // self.config.tubelet * self.slice

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """`(T, size, size, 3)` uint8 to `(N, dim)` float32; an incomplete last slice of time is dropped."""
        config = self.config
        tokens = patchify_video(self.scaling(torch.from_numpy(frames))[None], config.tubelet, config.patch)[0]
        if config.norm == "zscore":
            tokens = tokens - tokens.mean(1, keepdim=True)
            tokens = tokens / tokens.std(1, keepdim=True, correction=0).clamp(min=1e-5)
        return tokens.numpy()


def build(config: Config) -> VideoPatches:
    """The extractor; calling it with `(T, size, size, 3)` gives `(N, dim)`."""
    return VideoPatches(config)
