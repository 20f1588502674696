"""Log-mel filter-bank energies, numerically Kaldi's compute-fbank-feats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from speechkit.config import check_range
from speechkit.frontends.kaldi import FrameConfig, KaldiExtractor, frame_options


@dataclass
class Config(FrameConfig):
    """80 log-mels with Kaldi's defaults otherwise."""

    name: str = "fbank"
    """the kind of features"""
    bins: int = 80
    """mel filters"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("bins", self.bins, 3)


def _start(config: Config) -> Any:
    import kaldi_native_fbank

    options = frame_options(config, kaldi_native_fbank.FbankOptions())
    options.mel_opts.num_bins = config.bins
    options.use_energy = False
    return kaldi_native_fbank.OnlineFbank(options)


def build(config: Config) -> KaldiExtractor:
    """The extractor; calling it with `(S,)` gives `(T, bins)`."""
    return KaldiExtractor(config, config.bins, partial(_start, config))
