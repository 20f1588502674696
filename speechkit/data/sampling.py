"""How often an epoch uses each utterance, when several sources are mixed by other shares than their own.

XLSR (Conneau et al., 2021, section 3.2) draws languages by p_l ~ (n_l / N)^alpha. Here each source gets
its number of draws beforehand, so an epoch has the wanted shares and not only a sample of them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from speechkit.hashing import mix

_EXTRA = 4  # purpose of a draw


def draws_of_sources(
    seconds: np.ndarray, sources: np.ndarray, power: float, count: Literal["hours", "utterances"]
) -> np.ndarray:
    """Draws of each source in an epoch, `(S,)` int64; their sum is the number of utterances.

    Source l gets the share p_l = n_l^power / sum_k n_k^power of what is counted: of the hours, or of the
    utterances drawn.

    Args:
        seconds: `(N,)` durations.
        sources: `(N,)` numbers of the sources, from 0.
        power: alpha; 1 leaves the shares as they are, 0 makes them equal.
        count: what n_l is.
    """
    utterances = np.bincount(sources)
    # whole microseconds add up exactly, in any order of the utterances
    micros = np.bincount(sources, np.maximum(np.rint(seconds * 1e6), 1))
    amount = micros if count == "hours" else utterances.astype(np.float64)
    there = np.maximum(amount, 1)
    # a draw brings amount / utterances on average
    wanted = np.where(utterances > 0, (there / amount.sum()) ** power * utterances / there, 0)
    exact = wanted / wanted.sum() * len(sources)
    draws = np.floor(exact).astype(np.int64)
    missing = len(sources) - int(draws.sum())
    draws[np.argsort(draws - exact, kind="stable")[:missing]] += 1
    return draws


def draw(ids: np.ndarray, sources: np.ndarray, draws: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """How often each utterance is used, `(N,)` int64: those of a source equally often, or once more.

    Args:
        ids: `(N,)` uint64 hashes of the utterance ids.
        sources: `(N,)` numbers of the sources.
        draws: of each source.
        seed: of the run.
        epoch: which utterances get one more is drawn anew in each.
    """
    order = np.lexsort((ids, mix(seed, epoch, _EXTRA, ids), sources))
    counts = np.bincount(sources)
    first = np.cumsum(counts) - counts
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids)) - first[sources[order]]
    every, extra = np.divmod(draws, np.maximum(counts, 1))
    return every[sources] + (rank < extra[sources])
