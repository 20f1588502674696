"""Statistics of the colours of video, streamed and exact."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class ColourSums:
    """Sums over pixels of each colour, exact, for mean and deviation.

    Attributes:
        pixels: how many.
        sums: of values 0..255.
        squares: of their squares.
    """

    pixels: int = 0
    sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, frames: np.ndarray) -> None:
        """Takes in `(T, H, W, 3)` uint8."""
        for frame in frames:
            rows = frame.reshape(len(frame), -1).astype(np.uint16)
            for total, part in ((self.sums, rows), (self.squares, rows * rows)):
                found = part.sum(0, dtype=np.uint64).reshape(-1, 3).sum(0)
                total[:] = [a + int(b) for a, b in zip(total, found)]
            self.pixels += frame.shape[0] * frame.shape[1]

    def merge(self, other: ColourSums) -> None:
        """Takes in all that another has seen."""
        self.pixels += other.pixels
        self.sums = [a + b for a, b in zip(self.sums, other.sums)]
        self.squares = [a + b for a, b in zip(self.squares, other.squares)]

    def statistics(self) -> dict[str, list[float]]:
        """Mean and population deviation of each colour, of values in [0, 1]."""
        n = max(self.pixels, 1)
        variances = [n * q - s * s for s, q in zip(self.sums, self.squares)]
        return {"mean": [s / n / 255 for s in self.sums], "std": [v**0.5 / n / 255 for v in variances]}
