"""Framing and extraction shared by the log-mel and MFCC frontends, both computed by kaldi-native-fbank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from speechkit.config import check_range
from speechkit.frontends.deltas import add_deltas

# Samples handed over at once: as Python numbers they take about 32 bytes each.
PIECE = 1 << 18


@dataclass
class FrameConfig:
    """Kaldi's defaults, and what both frontends share."""

    name: str = ""
    """the kind of features"""
    rate: int = 16000
    """Hz; the waveform must have this rate."""
    frame_length: float = 25.0
    """milliseconds"""
    frame_shift: float = 10.0
    """milliseconds"""
    window: Literal["povey", "hanning", "hamming", "rectangular", "blackman"] = "povey"
    """povey is the Hann window to the power of 0.85"""
    preemphasis: float = 0.97
    """coefficient of the first-order high-pass filter"""
    remove_dc: bool = True
    """subtract each frame's mean before anything else"""
    snip_edges: bool = True
    """frames lie wholly within the signal; False centres them and mirrors the ends"""
    low_freq: float = 20.0
    """Hz, lower edge of the mel filters"""
    high_freq: float = 0.0
    """Hz, upper edge; 0 or less counts from half the sampling rate"""
    scale: float = 32768.0
    """factor on a waveform in [-1, 1]: Kaldi computes in 16-bit units; 1 shifts log-mels by -20.79"""
    dither: float = 0.0
    """always 0: features do not differ from run to run"""
    normalise: Literal["none", "utterance"] = "none"
    """subtract the utterance's mean and divide by its standard deviation, per dimension"""

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 1000)
        check_range("frame_shift", self.frame_shift, 1000 / self.rate)
        check_range("frame_length", self.frame_length, 2000 / self.rate)
        check_range("preemphasis", self.preemphasis, 0, 1)
        check_range("scale", self.scale, 1e-6)
        check_range("low_freq", self.low_freq, 0, self.rate / 2, open_high=True)
        upper = self.high_freq if self.high_freq > 0 else self.rate / 2 + self.high_freq
        if not self.low_freq < upper <= self.rate / 2:
            raise ValueError(
                f"high_freq={self.high_freq} must lie between low_freq and half the rate {self.rate}"
            )
        if self.dither != 0:
            raise ValueError(
                f"dither={self.dither} must be 0; add noise by augmentation instead, where it is seeded"
            )


def frame_options(config: FrameConfig, options: Any) -> Any:
    """Fills the framing and mel edges of a kaldi-native-fbank options object; returns it."""
    frames = options.frame_opts
    frames.samp_freq = config.rate
    frames.frame_length_ms, frames.frame_shift_ms = config.frame_length, config.frame_shift
    frames.window_type, frames.preemph_coeff = config.window, config.preemphasis
    frames.remove_dc_offset, frames.snip_edges = config.remove_dc, config.snip_edges
    frames.dither = 0.0
    options.mel_opts.low_freq, options.mel_opts.high_freq = config.low_freq, config.high_freq
    return options


class KaldiExtractor:
    """Computes features by kaldi-native-fbank; holds no state between calls, so threads may share it.

    Args:
        config: framing.
        dim: features a frame, before derivatives.
        start: makes a fresh online computer of kaldi-native-fbank; a module-level function with
            `config` bound, so that worker processes can be given the extractor.
        deltas: order of the time derivatives that are appended.

    Attributes:
        dim: features a frame.
        rate: Hz.
        window: samples of a frame.
        shift: samples between the starts of neighbouring frames.
        middle: samples from the beginning of the audio to the middle of the first frame.
    """

    def __init__(self, config: FrameConfig, dim: int, start: Callable[[], Any], deltas: int = 0) -> None:
        self.config, self.rate, self._start = config, config.rate, start
        self._static, self.deltas, self.dim = dim, deltas, dim * (1 + deltas)
        self.window = int(config.rate * 0.001 * config.frame_length)
        self.shift = int(config.rate * 0.001 * config.frame_shift)
        self.middle = (self.window if config.snip_edges else self.shift) / 2

    def frames(self, samples: int) -> int:
        """How many frames come out of so many samples (Kaldi's NumFrames)."""
        if self.config.snip_edges:
            return 0 if samples < self.window else 1 + (samples - self.window) // self.shift
        return (samples + self.shift // 2) // self.shift

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Features of one utterance.

        Args:
            waveform: `(S,)` float32 in [-1, 1] at `rate`.

        Returns:
            `(T, F)` float32 with T = `frames(S)`, which is 0 for less than one window.
        """
        waveform = np.asarray(waveform, dtype=np.float32)
        if waveform.ndim != 1:
            raise ValueError(f"expected a waveform (S,), got shape {waveform.shape}")
        features = np.empty((self.frames(len(waveform)), self._static), dtype=np.float32)
        if not len(features):
            return add_deltas(features, self.deltas)
        computer, done = self._start(), 0
        for start in range(0, len(waveform), PIECE):
            piece = waveform[start : start + PIECE] * np.float32(self.config.scale)
            computer.accept_waveform(self.rate, piece.tolist())  # a list is taken faster than an array
            done = self._collect(computer, features, done)
        computer.input_finished()
        done = self._collect(computer, features, done)
        if done != len(features):
            raise RuntimeError(f"kaldi-native-fbank gave {done} frames where {len(features)} were due")
        features = add_deltas(features, self.deltas)
        if self.config.normalise == "utterance":
            from speechkit.frontends.cmvn import Statistics

            statistics = Statistics(self.dim)
            statistics.add(features)
            return statistics.apply(features)
        return features

    @staticmethod
    def _collect(computer: Any, features: np.ndarray, done: int) -> int:
        ready = computer.num_frames_ready
        for index in range(done, ready):
            features[index] = computer.get_frame(index)
        computer.pop(ready - done)
        return ready
