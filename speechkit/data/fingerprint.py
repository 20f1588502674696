"""Finding recordings that are the same sound: by exact samples, and robustly to gain, codec and trimming.

The robust fingerprint is that of J. Haitsma and T. Kalker, "A Highly Robust Audio Fingerprinting System"
(ISMIR 2002): for every frame 32 bits, the signs of energy differences between neighbouring bands and
neighbouring frames (their equation 1), compared by bit error rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speechkit.files import hash_bytes

RATE = 8000
FRAME, HOP = 2048, 128  # 256 ms, so that a shift by half a hop changes few bits
BANDS = 33
LOWEST, HIGHEST = 300.0, 3000.0  # Hz: what a telephone keeps
MAX_BIT_ERRORS = 0.3  # unrelated sound has 0.5; the paper takes 0.35 for stretches of 3.3 s
MIN_OVERLAP = 0.8  # of the shorter sound
MIN_FRAMES = 40
_COMMON = 50  # a frame that occurs more often says nothing about where it comes from


def sample_hash(samples: np.ndarray, rate: int) -> str:
    """Hash of `(S,)` samples in [-1, 1] as 16-bit values, and of the rate: equal for equal PCM."""
    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return hash_bytes(pcm.tobytes(), str(rate).encode())


def fingerprint(samples: np.ndarray, rate: int) -> np.ndarray:
    """Robust fingerprint of a sound.

    Args:
        samples: `(S,)`.
        rate: its sample rate.

    Returns:
        `(N,)` uint32, one for each 16 ms after the first 256 ms; 0 marks frames in digital silence.
        Empty when the sound is shorter than that.
    """
    from scipy.fft import rfft

    from speechkit.data.audio import resample

    samples = resample(np.asarray(samples, dtype=np.float32), rate, RATE)
    if len(samples) < FRAME + HOP:
        return np.zeros(0, dtype=np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    window = np.hanning(FRAME).astype(np.float32)
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1) * FRAME / RATE
    first = np.searchsorted(np.arange(FRAME // 2 + 1), edges).astype(int)
    bits = []
    for start in range(0, len(frames), 512):  # a piece at a time: an hour of frames would be gigabytes
        spectrum = rfft(frames[start : start + 513] * window)[:, : first[-1]]
        power = spectrum.real**2 + spectrum.imag**2
        energy = np.add.reduceat(power, first[:-1], axis=1, dtype=np.float64)
        between_bands = energy[:, :-1] - energy[:, 1:]
        rising = between_bands[1:] - between_bands[:-1] > 0
        loud = energy[1:].sum(axis=1) > 1e-7
        bits.append(np.where(loud, rising @ (1 << np.arange(BANDS - 1, dtype=np.uint64)), 0))
    return np.concatenate(bits).astype(np.uint32)


@dataclass(frozen=True)
class Match:
    """Two sounds that are one: `name` is the one looked up, `other` the one in the index."""

    name: str
    other: str
    bit_errors: float


class FingerprintIndex:
    """Sounds that others are compared with.

    Args:
        prints: id and fingerprint of each sound; those too short to compare are left out.
    """

    def __init__(self, prints: Iterable[tuple[str, np.ndarray]]) -> None:
        kept = [(name, bits) for name, bits in prints if len(bits) >= MIN_FRAMES]
        self.names = [name for name, _ in kept]
        self.prints = [bits for _, bits in kept]
        values = np.concatenate([*self.prints, np.zeros(0, dtype=np.uint32)])
        owners = np.repeat(np.arange(len(kept)), [len(bits) for bits in self.prints])
        frames = np.concatenate([np.arange(len(bits)) for bits in self.prints] + [np.zeros(0, dtype=int)])
        order = np.argsort(values, kind="stable")
        self.values, self.owners, self.frames = values[order], owners[order], frames[order]

    def find(self, name: str, bits: np.ndarray) -> Iterator[Match]:
        """Sounds of the index that share most of their length with this one."""
        if len(bits) < MIN_FRAMES or not self.names:
            return
        left = np.searchsorted(self.values, bits, "left")
        right = np.searchsorted(self.values, bits, "right")
        usable = np.flatnonzero((right > left) & (right - left <= _COMMON) & (bits != 0))
        if not len(usable):
            return
        counts = right[usable] - left[usable]
        here = np.repeat(usable, counts)
        there = np.arange(counts.sum()) + np.repeat(left[usable] - (counts.cumsum() - counts), counts)
        pairs = np.stack([self.owners[there], here - self.frames[there]], axis=1)
        shifts, votes = np.unique(pairs, axis=0, return_counts=True)
        found: set[int] = set()
        for owner, shift in shifts[np.argsort(-votes, kind="stable")][:100]:
            errors = None if owner in found else _bit_errors(bits, self.prints[owner], shift)
            if errors is not None and errors <= MAX_BIT_ERRORS:
                found.add(owner)
                yield Match(name, self.names[owner], errors)


def _bit_errors(a: np.ndarray, b: np.ndarray, shift: int) -> float | None:
    """Share of differing bits where b, moved by `shift` frames, overlaps a; None when that is too little."""
    start, end = max(0, shift), min(len(a), len(b) + shift)
    if end - start < MIN_OVERLAP * min(len(a), len(b)):
        return None
    left, right = a[start:end], b[start - shift : end - shift]
    sounding = (left != 0) | (right != 0)
    if sounding.sum() < MIN_FRAMES / 2:
        return None
    differing = np.unpackbits((left[sounding] ^ right[sounding]).view(np.uint8)).sum()
    return float(differing) / (32 * int(sounding.sum()))
