"""Log-mel features as librosa and ESPnet have them: centred windows, Slaney's scale, no preemphasis.

Sources: ESPnet's `DefaultFrontend`; librosa's `stft` and `filters.mel` (areas of one for every filter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from speechkit.config import check_range
from speechkit.frontends.cmvn import Statistics

FLOOR = 1e-10
"""Least energy of a filter."""


@dataclass
class Config:
    """ESPnet's defaults."""

    name: str = "logmel"
    """The kind of features."""
    rate: int = 16000
    """Hz; the waveform must have this rate."""
    bins: int = 80
    """Mel filters."""
    fft: int = 512
    """Samples of a Fourier transform, even."""
    window: int | None = None
    """Samples of the Hann window in its middle; null for all."""
    shift: int = 128
    """Samples between the middles of neighbouring frames."""
    low_freq: float = 0.0
    """Hz, lower edge of the mel filters."""
    high_freq: float | None = None
    """Hz, upper edge; null for half the rate."""
    htk: bool = False
    """HTK's mel scale instead of Slaney's."""
    normalise: Literal["none", "mean", "utterance"] = "none"
    """Subtract the utterance's mean of each dimension; `utterance` also divides by its deviation."""

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 1000)
        check_range("bins", self.bins, 1)
        check_range("shift", self.shift, 1)
        check_range("fft", self.fft, 2)
        if self.fft % 2:
            raise ValueError(f"fft={self.fft} must be even")
        if self.window is not None:
            check_range("window", self.window, 2, self.fft)
        check_range("low_freq", self.low_freq, 0, self.rate / 2, open_high=True)
        if self.high_freq is not None and not self.low_freq < self.high_freq <= self.rate / 2:
            raise ValueError(f"high_freq={self.high_freq} must lie between low_freq and half the rate")


class LogMel:
    """The extractor; see `speechkit.frontends`."""

    def __init__(self, config: Config) -> None:
        self.config, self.dim, self.rate = config, config.bins, config.rate
        self.window, self.shift, self.middle = config.fft, config.shift, 0
        size = config.window or config.fft
        shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        self.shape = np.zeros(config.fft)
        start = (config.fft - size) // 2
        self.shape[start : start + size] = shape
        self.filters = mel_filters(config)

    def frames(self, samples: int) -> int:
        """How many frames come out of so many samples; none where the ends could not be mirrored."""
        return 0 if samples <= self.config.fft // 2 else 1 + samples // self.shift

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """`(S,)` in [-1, 1] to `(T, bins)` float32."""
        waveform = np.asarray(waveform, dtype=np.float32)
        if waveform.ndim != 1:
            raise ValueError(f"expected a waveform (S,), got shape {waveform.shape}")
        count = self.frames(len(waveform))
        if not count:
            return np.empty((0, self.dim), dtype=np.float32)
        signal = np.pad(waveform, self.config.fft // 2, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(signal, self.config.fft)[:: self.shift]
        power = np.abs(np.fft.rfft(windows * self.shape)) ** 2
        features = np.log(np.maximum(power @ self.filters, FLOOR)).astype(np.float32)
        if self.config.normalise == "mean":
            return features - features.mean(axis=0)
        if self.config.normalise == "utterance":
            statistics = Statistics(self.dim)
            statistics.add(features)
            return statistics.apply(features)
        return features


def mel_filters(config: Config) -> np.ndarray:
    """`(fft / 2 + 1, bins)` triangles over the bins of the Fourier transform, each of area one over Hz."""
    high = config.rate / 2 if config.high_freq is None else config.high_freq
    to_mel, to_hertz = (_htk, _from_htk) if config.htk else (_slaney, _from_slaney)
    edges = to_hertz(np.linspace(to_mel(config.low_freq), to_mel(high), config.bins + 2))
    places = np.linspace(0, config.rate / 2, config.fft // 2 + 1)[:, None]
    up = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(up, down)) * 2 / (edges[2:] - edges[:-2])


BEND, STEP, LOG_STEP = 1000.0, 200 / 3, np.log(6.4) / 27
"""Slaney's scale: linear below 1 kHz, 27 steps of equal ratio from there to 6.4 kHz."""


def _slaney(hertz: float) -> float:
    return hertz / STEP if hertz < BEND else BEND / STEP + np.log(hertz / BEND) / LOG_STEP


def _from_slaney(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < BEND / STEP, mel * STEP, BEND * np.exp(LOG_STEP * (mel - BEND / STEP)))


def _htk(hertz: float) -> float:
    return 2595 * np.log10(1 + hertz / 700)


def _from_htk(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


def build(config: Config) -> LogMel:
    """The extractor."""
    return LogMel(config)
