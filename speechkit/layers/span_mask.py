"""Span masks over time or channels (wav2vec 2.0: Baevski et al., 2020, section 3.1; SpecAugment-like).

A row is a pure function of the utterance's key, a salt and its length: it is the same in any batch, at
any place, on any machine, and again after a resume. All rows are drawn at once, by hashing positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.hashing import mix, uniform

COUNT, START, LENGTH, NORMAL, CUT, REST = range(6)  # purposes of draws


@dataclass
class Config:
    """How much is masked, in spans of which lengths."""

    probability: float = 0.65
    """Spans x length / frames, before overlaps: `mask_time_prob` of Hugging Face, `mask_prob` of fairseq.
    It is p * M for the share p of frames that start a span (0.065 in the paper) and the length M; of a long
    utterance 1 - (1 - p)^M is masked: 0.49 for wav2vec 2.0 (0.65), 0.57 for HuBERT (0.8)."""

    length: int = 10
    """M, frames of a span (the mean, when lengths are drawn)."""

    min_spans: int = 2
    """Fewest spans of an utterance, as far as they fit; 0 for channels."""

    start_range: Literal["full", "fairseq"] = "full"
    """Where spans start: `full` wherever they fit; `fairseq` one place less, so that the last frame is never
    masked, and from place 0 up to the number of spans when that leaves too few places."""

    equalize: bool = False
    """Unmask random single frames until all utterances of a batch have equally many masked ones (fairseq's
    `require_same_masks`): a row then depends on its batch."""

    length_distribution: Literal["static", "uniform", "normal", "poisson"] = "static"
    """Lengths of spans: all `length`; even over 1 ... 2 length - 1; normal with `length_spread`; Poisson."""

    length_spread: float = 3.0
    """Standard deviation in frames of the normal distribution."""

    no_overlap: bool = False
    """Place spans with gaps of at least `min_space` frames; fewer spans where they do not fit."""

    min_space: int = 1
    """Frames between spans without overlap."""

    def __post_init__(self) -> None:
        check_range("length", self.length, 1)
        check_range("probability", self.probability, 0, self.length)
        for name in ("min_spans", "length_spread", "min_space"):
            check_range(name, getattr(self, name), 0)


def span_mask(
    lengths: Tensor, config: Config, keys: Tensor, salt: int = 0, width: int | None = None
) -> Tensor:
    """Draws a mask for each utterance.

    `floor(probability * frames / length + u)` spans, u even in [0, 1), start at different places. An
    utterance shorter than a span gets one span of half its frames. At least one frame stays unmasked.

    Args:
        lengths: `(B,)` frames.
        config: how much.
        keys: `(B,)` int64 on the CPU, see `speechkit.data.batch.Batch`.
        salt: keeps draws of one utterance for different purposes apart.
        width: number of columns; the longest length when None.

    Returns:
        `(B, width)` bool on the device of `lengths`, True at masked frames, never at padding.
    """
    sizes = lengths.cpu().numpy()
    width = int(sizes.max(initial=0)) if width is None else width
    seeds = mix(keys.cpu().numpy(), salt)[:, None]
    counts, spans = _spans(sizes, config, seeds)
    if config.no_overlap:
        starts, counts = _apart(sizes, counts, spans, config, seeds)
    else:
        starts, counts = _anywhere(sizes, counts, spans, config, seeds)
    hidden = _union(starts, starts + spans, counts, sizes, width)
    places = _ranks(mix(seeds, REST, np.arange(width)), hidden)
    hidden &= places < np.maximum(sizes - 1, 0)[:, None]
    if config.equalize:
        total = hidden.sum(1)
        fewest = total[total > 0].min(initial=width)
        hidden &= _ranks(mix(seeds, CUT, np.arange(width)), hidden) < fewest
    return torch.from_numpy(hidden).to(lengths.device)


def channel_mask(keys: Tensor, dim: int, config: Config, salt: int = 0) -> Tensor:
    """Channels to zero over all time, by the same rule: `(B, dim)` bool on the CPU.

    Args:
        keys: `(B,)` int64 on the CPU.
        dim: number of channels.
        config: `min_spans` is 0 in published settings.
        salt: as in `span_mask`; another one than for time.
    """
    return span_mask(torch.full((len(keys),), dim), config, keys, salt, dim)


def _spans(sizes: np.ndarray, config: Config, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of spans `(B,)` and their lengths `(B, S)`."""
    wanted = config.probability * sizes / config.length + uniform(seeds, COUNT)[:, 0]
    counts = np.maximum(np.floor(wanted), config.min_spans).astype(np.int64)
    lengths = _draw_lengths(config, seeds, np.arange(counts.max(initial=0)))
    short = sizes < config.length
    half = np.maximum(sizes // 2, 1)[:, None]
    return np.where(short, np.minimum(counts, 1), counts), np.where(short[:, None], half, lengths)


def _draw_lengths(config: Config, seeds: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """`(B, S)` frames, at least 1."""
    mean, draws = config.length, uniform(seeds, LENGTH, spans)
    if config.length_distribution == "static":
        return np.full(draws.shape, mean)
    if config.length_distribution == "uniform":
        return 1 + np.floor(draws * (2 * mean - 1)).astype(np.int64)
    if config.length_distribution == "normal":  # Box and Muller (1958)
        angle = np.cos(2 * np.pi * uniform(seeds, NORMAL, spans))
        values = mean + config.length_spread * np.sqrt(-2 * np.log1p(-draws)) * angle
        return np.maximum(np.rint(values), 1).astype(np.int64)
    counts = np.arange(4 * mean + 20)
    log_factorials = np.array([math.lgamma(k + 1) for k in counts])
    distribution = np.exp(counts * math.log(mean) - mean - log_factorials).cumsum()
    return np.maximum(np.searchsorted(distribution, draws, side="right"), 1)


def _anywhere(
    sizes: np.ndarray, counts: np.ndarray, spans: np.ndarray, config: Config, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Starts `(B, S)`, all different, of spans that may overlap, and how many fit `(B,)`."""
    used = np.arange(spans.shape[1]) < counts[:, None]
    shortest = np.where(used, spans, spans.max(initial=1)).min(1, initial=spans.max(initial=1))
    places = sizes - shortest + 1
    if config.start_range == "fairseq":
        places = np.where(places - 1 <= counts, counts + 1, places - 1)
    places = np.minimum(places, sizes)
    return _choose(seeds, places, spans.shape[1]), np.minimum(counts, places)


def _apart(
    sizes: np.ndarray, counts: np.ndarray, spans: np.ndarray, config: Config, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same for spans with gaps: every arrangement of those that fit is equally likely."""
    numbers = np.arange(spans.shape[1])
    occupied = spans.cumsum(1) + config.min_space * numbers
    fitting = (occupied < sizes[:, None]) & (numbers < counts[:, None])
    counts = fitting.sum(1)  # lengths are positive: those that fit come first
    free = sizes - np.where(fitting, occupied, 0).max(1, initial=0)
    chosen = _choose(seeds, free + counts, spans.shape[1])
    beyond = np.where(numbers < counts[:, None], chosen, sizes.max(initial=0) + free.max(initial=0) + 1)
    slots = np.sort(beyond, axis=1)  # which of the free and the occupied slots are spans
    return slots - numbers + occupied - spans, counts


def _choose(seeds: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """`(B, count)` different whole numbers below `places` in random order; what is missing is arbitrary."""
    everything = np.arange(max(int(places.max(initial=0)), count))
    draws = mix(seeds, START, everything) >> np.uint64(1)
    draws[everything >= places[:, None]] = np.uint64(2**63)
    return draws.argsort(axis=1, kind="stable")[:, :count]


def _union(
    starts: np.ndarray, ends: np.ndarray, counts: np.ndarray, sizes: np.ndarray, width: int
) -> np.ndarray:
    """`(B, width)` bool, True inside any of the first `counts` spans of a row and below its size."""
    rows, column = np.nonzero(np.arange(starts.shape[1]) < counts[:, None])
    change = np.zeros((len(sizes), width + 1), np.int64)
    np.add.at(change, (rows, np.minimum(starts[rows, column], width)), 1)
    np.add.at(change, (rows, np.minimum(ends[rows, column], width)), -1)
    return (change.cumsum(1)[:, :width] > 0) & (np.arange(width) < sizes[:, None])


def _ranks(draws: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`(B, width)`: place of each chosen frame in the random order of the chosen ones of its row."""
    order = np.where(chosen, draws >> np.uint64(1), np.uint64(2**63)).argsort(axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    return ranks
