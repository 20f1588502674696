"""Mel-frequency cepstral coefficients, numerically Kaldi's compute-mfcc-feats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from speechkit.config import check_range
from speechkit.frontends.kaldi import FrameConfig, KaldiExtractor, frame_options


@dataclass
class Config(FrameConfig):
    """Kaldi's 13 coefficients.

    Its "hires" ones are ceps=40 bins=40 use_energy=false high_freq=-400; what HuBERT's first iteration
    clusters (fairseq's examples/hubert/simple_kmeans) is use_energy=false deltas=2.
    """

    name: str = "mfcc"
    """the kind of features"""
    ceps: int = 13
    """coefficients, C0 included"""
    bins: int = 23
    """mel filters"""
    use_energy: bool = True
    """the frame's log energy stands in for C0"""
    lifter: float = 22.0
    """cepstral lifter; 0 is none"""
    deltas: int = 0
    """order of the time derivatives appended: 2 makes 39 of 13"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("bins", self.bins, 3)
        check_range("ceps", self.ceps, 1, self.bins)
        check_range("lifter", self.lifter, 0)
        check_range("deltas", self.deltas, 0, 3)


def _start(config: Config) -> Any:
    import kaldi_native_fbank

    options = frame_options(config, kaldi_native_fbank.MfccOptions())
    options.mel_opts.num_bins = config.bins
    options.num_ceps, options.use_energy = config.ceps, config.use_energy
    options.cepstral_lifter = config.lifter
    return kaldi_native_fbank.OnlineMfcc(options)


def build(config: Config) -> KaldiExtractor:
    """The extractor; calling it with `(S,)` gives `(T, ceps * (1 + deltas))`."""
    return KaldiExtractor(config, config.ceps, partial(_start, config), config.deltas)
