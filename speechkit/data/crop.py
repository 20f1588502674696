"""Crops of training utterances: one span of samples, and the same span of features and labels.

Everything is a function of the batch plan, so a crop is the same in any process and after a resume.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from speechkit.errors import InputError
from speechkit.hashing import mix

STEP = 640
"""Crops start at multiples of so many samples: a whole number of hops of every front end at 16 kHz (160
samples for features, 320 for a waveform encoder, 640 after subsampling by 4) and of labels."""

_START = 5  # purpose of a draw


class Crop(NamedTuple):
    """A part of an utterance, in samples after speed perturbation."""

    start: int
    size: int


def crop_starts(keys: np.ndarray, samples: np.ndarray, sizes: np.ndarray, step: int = STEP) -> np.ndarray:
    """Where crops begin: `(B,)` int64, evenly drawn multiples of `step`.

    Args:
        keys: `(B,)` int64 hashes of seed, epoch and utterance.
        samples: `(B,)` lengths of the utterances.
        sizes: `(B,)` lengths of their crops, none above `samples`.
        step: in samples; 1 allows every place.
    """
    places = ((samples - sizes) // step + 1).astype(np.uint64)
    return (mix(keys, _START) % places).astype(np.int64) * step


def crop_sizes(samples: np.ndarray, spans: np.ndarray, longest: int | None, to_shortest: bool) -> np.ndarray:
    """How long crops are: `(N,)` int64.

    Args:
        samples: `(N,)` lengths of the utterances.
        spans: `(M, 2)` micro-batches, as ranges of positions; together they are all positions.
        longest: limit in samples, or None.
        to_shortest: cut all of a micro-batch to its shortest.
    """
    sizes = samples if longest is None else np.minimum(samples, longest)
    if to_shortest:
        starts, first = np.unique(spans[:, 0], return_index=True)
        counts = spans[first, 1] - starts
        sizes = np.repeat(np.minimum.reduceat(sizes, starts), counts)
    return sizes


def check_extractor(extractor: Any) -> None:
    """Raises InputError when a crop cannot begin between two frames of this front end."""
    shift = getattr(extractor, "shift", None)
    if not shift or STEP % shift:
        raise InputError(
            f"plan: crops begin at multiples of {STEP} samples, these features advance by {shift} samples; "
            f"choose a frame_shift that divides {STEP} samples, or no crops"
        )


def by_window(extractor: Any) -> bool:
    """Whether a frame depends on its own window alone, so that a crop's features are computed from the crop.

    Others, with derivatives or normalised by utterance, are cut from the features of the whole utterance.
    """
    config = getattr(extractor, "config", None)
    local = getattr(config, "snip_edges", False) and getattr(config, "normalise", "") == "none"
    return local and not getattr(extractor, "deltas", 0)


def crop_features(features: np.ndarray, crop: Crop, extractor: Any) -> np.ndarray:
    """The frames `(T', F)` that lie in a crop, of the `(T, F)` of the utterance."""
    first = crop.start // extractor.shift
    return features[first : first + extractor.frames(crop.size)]


def crop_labels(labels: np.ndarray, crop: Crop, label_rate: float, rate: int) -> np.ndarray:
    """The labels of a crop: from start * label_rate / rate on, size * label_rate / rate of them or all left.

    Args:
        labels: `(L,)` of the whole utterance.
        crop: the span.
        label_rate: labels a second.
        rate: samples a second.
    """
    first = round(crop.start * label_rate / rate)
    return labels[first : first + round(crop.size * label_rate / rate)]
