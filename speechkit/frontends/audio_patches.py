"""Audio tokens of an audio-visual BERT as features: log-mel energies, whitened, clipped and stacked.

With these in `speechkit kmeans`, clusters are of exactly what the model will read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.frontends import fbank
from speechkit.frontends.patches import LIMIT, STACK, Whitening, config_hash, read_statistics, stack_audio


@dataclass
class Config(fbank.Config):
    """64 log-mels every 10 ms (10 s are 1,000 frames), 3 of them to a token."""

    name: str = "audio_patches"
    """the kind of features"""
    bins: int = 64
    """mel filters"""
    snip_edges: bool = False
    """frames lie wholly within the signal; False centres them and mirrors the ends"""
    stack: int = STACK
    """frames of a token"""
    whiten: Literal["per_bin", "scalar"] = "per_bin"
    """one mean and deviation for each bin, or for all together"""
    limit: float = LIMIT
    """whitened values are clipped to [-limit, limit]"""
    statistics: str = ""
    """cmvn.json of the training set, read once: what counts are the values"""
    mean: list[float] = field(default_factory=list)
    """of each bin; filled from `statistics`"""
    std: list[float] = field(default_factory=list)
    """standard deviation of each bin; filled from `statistics`"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("stack", self.stack, 1)
        check_range("limit", self.limit, 1e-3)
        if self.statistics:
            found = read_statistics(self.statistics, self.energies, "speechkit features --cmvn true")
            self.mean, self.std, self.statistics = found["mean"], found["std"], ""
        if len(self.mean) != self.bins or len(self.std) != self.bins:
            raise InputError(
                f"{self.name}: {len(self.mean)} means and {len(self.std)} deviations for {self.bins} bins; "
                "give statistics=cmvn.json (speechkit features --cmvn true)"
            )

    @property
    def energies(self) -> fbank.Config:
        """The log-mels that are whitened."""
        values = {f.name: getattr(self, f.name) for f in fields(fbank.Config)}
        return fbank.Config(**{**values, "name": "fbank"})

    @property
    def hash(self) -> str:
        """Of all that a token depends on, statistics included."""
        return config_hash(self)


def of_features(features: fbank.Config, statistics: dict[str, Any], **options: Any) -> Config:
    """The tokens that a model makes of its own features.

    Args:
        features: the model's frontend.
        statistics: `mean` and `std`, as in cmvn.json.
        options: `stack`, `whiten` and `limit`.
    """
    values = {f.name: getattr(features, f.name) for f in fields(fbank.Config) if f.name != "name"}
    return Config(**values, **options, mean=list(statistics["mean"]), std=list(statistics["std"]))


class AudioPatches:
    """`(S,)` samples to `(N, stack * bins)` tokens; attributes as of `KaldiExtractor`.

    Args:
        config: see `Config`.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.energies = config, fbank.build(config.energies)
        self.whitening = Whitening({"mean": config.mean, "std": config.std}, config.whiten, config.limit)
        inner = self.energies
        self.dim, self.rate = config.stack * config.bins, inner.rate
        self.window = inner.window + (config.stack - 1) * inner.shift
        self.shift = config.stack * inner.shift
        self.middle = inner.middle + (config.stack - 1) * inner.shift / 2

    def frames(self, samples: int) -> int:
        """How many tokens come out of so many samples."""
        return self.energies.frames(samples) // self.config.stack

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """`(S,)` float32 in [-1, 1] to `(N, stack * bins)` float32; an incomplete last token is dropped."""
        features = torch.from_numpy(self.energies(waveform))
        whitened = self.whitening(features)[None]
        return stack_audio(whitened, torch.tensor([len(features)]), self.config.stack)[0][0].numpy()


def build(config: Config) -> AudioPatches:
    """The extractor; calling it with `(S,)` gives `(N, stack * bins)`."""
    return AudioPatches(config)
