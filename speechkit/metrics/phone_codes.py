"""What the codewords of a quantizer know of phones: how many are in use, how sure each is of its phone.

Source: Wang et al., "UniSpeech", 2021, the analysis of its codebook: p(phone | codeword) from counts over all
frames, and the mean entropy of codewords. A codeword is the tuple of entries of all codebooks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.clustering.quality import joint_quality
from speechkit.errors import InputError
from speechkit.metrics.plots import figure

OFTEN = 10
"""Frames of a codeword from which on its entropy says something: one seen once has none."""

DRAWN = 5
"""Frames of a codeword from which on it is in the picture."""


def phones_of_frames(
    starts: np.ndarray,
    ends: np.ndarray,
    phones: np.ndarray,
    first: float,
    shift: int,
    window: int,
    frames: int,
) -> np.ndarray:
    """The phone that each frame hears most of.

    Args:
        starts: `(N,)` first samples of phones that follow each other.
        ends: `(N,)` samples behind them.
        phones: `(N,)` numbers of the phones.
        first: sample at which the first frame's window begins.
        shift: samples between frames.
        window: samples of a frame's window.
        frames: T.

    Returns:
        `(T,)` int64, the phone with the largest overlap with the frame's window, the earlier one of equals;
        -1 for frames in which there is none.
    """
    left = first + shift * np.arange(frames, dtype=np.float64)
    right = left + window
    low, high = np.searchsorted(ends, left, side="right"), np.searchsorted(starts, right, side="left")
    most = int((high - low).max(initial=0))
    if most == 0:
        return np.full(frames, -1, np.int64)
    place = low[:, None] + np.arange(most)
    inside = place < high[:, None]
    place = np.minimum(place, len(starts) - 1)
    overlap = np.minimum(ends[place], right[:, None]) - np.maximum(starts[place], left[:, None])
    overlap, found = np.where(inside, overlap, 0.0), phones[place]
    heard = sum(np.where(found == found[:, k : k + 1], overlap[:, k : k + 1], 0.0) for k in range(most))
    heard = np.where(inside, heard, 0.0)
    best = heard.argmax(1)[:, None]
    chosen = np.take_along_axis(found, best, 1)[:, 0].astype(np.int64)
    return np.where(np.take_along_axis(heard, best, 1)[:, 0] > 0, chosen, -1)


class PhoneCodes:
    """How often each phone met each codeword; takes in one utterance after the other.

    Attributes:
        frames: taken in, with a phone.
        without: frames that had no phone.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], int] = {}
        self.frames = self.without = 0

    def add(self, phones: np.ndarray, codes: np.ndarray) -> None:
        """Takes in `(T,)` phones, -1 for none, and the `(T,)` numbers of the frames' codewords."""
        heard = phones >= 0
        pairs = np.stack([codes[heard], phones[heard]], axis=1).astype(np.int64)
        self.frames += len(pairs)
        self.without += len(heard) - len(pairs)
        if not len(pairs):
            return
        kinds, counts = np.unique(pairs, axis=0, return_counts=True)
        for (code, phone), count in zip(kinds.tolist(), counts.tolist()):
            self._counts[code, phone] = self._counts.get((code, phone), 0) + count

    def table(self, names: list[str]) -> Table:
        """All counts, phones by frequency.

        Args:
            names: of the phones, by number.

        Raises:
            InputError: no frame had a phone.
        """
        if not self.frames:
            raise InputError(
                "not one frame with a phone: the audio is too short, or its phones lie elsewhere"
            )
        pairs = np.array(sorted(self._counts), np.int64)
        counts = np.array([self._counts[code, phone] for code, phone in pairs.tolist()], np.int64)
        codes, columns = np.unique(pairs[:, 0], return_inverse=True)
        matrix = np.zeros((len(names), len(codes)), np.int64)
        matrix[pairs[:, 1], columns] = counts
        often = matrix.sum(axis=1)
        order = sorted(np.flatnonzero(often).tolist(), key=lambda phone: (-often[phone], names[phone]))
        return Table([names[phone] for phone in order], codes, matrix[order])


@dataclass(frozen=True)
class Table:
    """Counts of phones and codewords.

    Attributes:
        phones: names, the most frequent first.
        codes: `(Q,)` numbers of the codewords in use.
        counts: `(P, Q)` frames.
    """

    phones: list[str]
    codes: np.ndarray
    counts: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        """`(Q,)` frames of each codeword."""
        return self.counts.sum(axis=0)

    def entropies(self) -> np.ndarray:
        """`(Q,)` entropy of p(phone | codeword) in nats."""
        shares = self.counts / self.totals
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        return 0.0 - (shares * logs).sum(axis=0)  # 0, not -0, for a codeword of one phone

    def picture(self, least: int = DRAWN) -> tuple[np.ndarray, np.ndarray]:
        """The matrix to draw.

        Codewords seen fewer than `least` times are left out. The others are ordered by their likeliest phone
        (of equally likely ones the most frequent), and within a phone the surest first.

        Returns:
            `(P, Q')` p(phone | codeword), and the `(Q',)` likeliest phones of its columns.
        """
        kept = np.flatnonzero(self.totals >= least)
        shares = self.counts[:, kept] / self.totals[kept]
        best = shares.argmax(axis=0)
        order = np.lexsort((self.codes[kept], -shares.max(axis=0, initial=0), best))
        return shares[:, order], best[order]


def measure(table: Table, codewords: int) -> dict[str, Any]:
    """All numbers.

    Args:
        table: the counts.
        codewords: how many the quantizer could use.

    Returns:
        Numbers by name; entropies in nats, with `_bits` behind their names in bits, and None where no
        codeword was seen often enough. Purities and mutual information are those of
        `speechkit.clustering.quality`, codewords being the labels.
    """
    totals, entropies = table.totals, table.entropies()
    often = totals >= OFTEN
    means = {
        "entropy": float(entropies.mean()),
        "entropy_weighted": float((entropies * totals).sum() / totals.sum()),
        "entropy_often": float(entropies[often].mean()) if often.any() else None,
    }
    bits = {f"{name}_bits": None if nats is None else nats / math.log(2) for name, nats in means.items()}
    likeliest = np.bincount(table.counts.argmax(axis=0), minlength=len(table.phones))
    return {
        "active": len(table.codes),
        "codewords": codewords,
        "seen_once": int((totals == 1).sum()),
        "often": OFTEN,
        "active_often": int(often.sum()),
        **means,
        **bits,
        **joint_quality(table.counts),
        "phones": {
            phone: {"frames": int(frames), "codewords": int(count)}
            for phone, frames, count in zip(table.phones, table.counts.sum(axis=1), likeliest)
        },
    }


def draw_phone_codes(table: Table, title: str, path: str | Path, least: int = DRAWN) -> int:
    """Draws p(phone | codeword), a row for each phone and a column for each codeword, as a PNG.

    Args:
        table: the counts.
        title: of the picture.
        path: the PNG.
        least: frames of a codeword from which on it is drawn.

    Returns:
        How many codewords are drawn.
    """
    shares, _ = table.picture(least)
    count = shares.shape[1]
    with figure(Path(path), (9, max(2.5, 1.2 + 0.13 * len(table.phones)))) as (axes,):
        if count:
            image = axes.imshow(shares, aspect="auto", cmap="magma_r", vmin=0, vmax=1, extent=_extent(shares))
            axes.figure.colorbar(image, ax=axes, label="p(phone | codeword)", pad=0.01)
        axes.set_yticks(range(len(table.phones)), table.phones, fontsize=7)
        axes.grid(visible=False)
        axes.set_xlabel(f"codewords seen {least} times or more, by their likeliest phone")
        axes.set_ylabel("phones, the most frequent on top")
        axes.set_title(title, loc="left")
    return count


def _extent(shares: np.ndarray) -> tuple[float, float, float, float]:
    return (0, shares.shape[1], len(shares) - 0.5, -0.5)
