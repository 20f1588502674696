"""Cepstral mean and variance statistics, streamed in float64."""

from __future__ import annotations

import numpy as np

# A dimension that never changes gets this standard deviation instead of 0.
FLOOR = 1e-5


class Statistics:
    """Mean and variance of frames as they come; parts computed apart can be merged.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979, Eq. 2.1: sums of squared deviations, which unlike plain sums of
    squares lose no digits when the mean is large.

    Args:
        dim: features a frame.
    """

    def __init__(self, dim: int) -> None:
        self.frames = 0
        self.mean = np.zeros(dim)
        self.deviations = np.zeros(dim)

    def add(self, features: np.ndarray) -> None:
        """Takes in `(T, F)` frames."""
        if not len(features):
            return
        part = Statistics(len(self.mean))
        values = features.astype(np.float64)
        part.frames, part.mean = len(values), values.mean(axis=0)
        part.deviations = np.square(values - part.mean).sum(axis=0)
        self.merge(part)

    def merge(self, other: Statistics) -> None:
        """Takes in all that another has seen."""
        total = self.frames + other.frames
        if not total:
            return
        gap = other.mean - self.mean
        self.mean = self.mean + gap * (other.frames / total)
        self.deviations = self.deviations + other.deviations + gap**2 * (self.frames * other.frames / total)
        self.frames = total

    @property
    def std(self) -> np.ndarray:
        """`(F,)` population standard deviation, at least `FLOOR`."""
        return np.maximum(np.sqrt(self.deviations / max(self.frames, 1)), FLOOR)

    def apply(self, features: np.ndarray) -> np.ndarray:
        """`(T, F)` float32 frames with this mean taken away and this deviation divided out."""
        return ((features - self.mean) / self.std).astype(np.float32)

    def to_dict(self) -> dict:
        """`{"mean": [F], "std": [F], "frames": n}`, the content of cmvn.json."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "frames": self.frames}
