"""Utterances in a given order, cut into micro-batches: ranges of positions, so a plan is a few arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Budget:
    """What a micro-batch may hold.

    Attributes:
        seconds: rows x (longest + quadratic x longest^2).
        quadratic: extra cost of long utterances, in 1/seconds.
        utterances: rows.
        to_shortest: all are cut to the shortest, which then counts instead of the longest.
        ratio: longest over shortest.
    """

    seconds: float
    quadratic: float
    utterances: int
    to_shortest: bool
    ratio: float


def cut(lengths: np.ndarray, groups: np.ndarray, budget: Budget) -> np.ndarray:
    """Ranges `(M, 2)` of neighbours of one group within the budget; what is above it is alone.

    Args:
        lengths: `(N,)` seconds.
        groups: `(N,)` equal for neighbours that may be together.
        budget: of each range.
    """
    starts, start, longest, shortest = [0], 0, 0.0, np.inf
    for position, (length, group) in enumerate(zip(lengths.tolist(), groups.tolist())):
        longest, shortest = max(longest, length), min(shortest, length)
        rows, used = position - start + 1, shortest if budget.to_shortest else longest
        cost = rows * (used + budget.quadratic * used * used)
        full = cost > budget.seconds or rows > budget.utterances or longest > budget.ratio * shortest
        if rows > 1 and (full or group != groups[start]):
            starts.append(position)
            start, longest, shortest = position, length, length
    return np.stack([starts, [*starts[1:], len(lengths)]], axis=1).astype(np.int64)


def halve(spans: np.ndarray, multiple: int) -> np.ndarray:
    """Halves the spans with most utterances until their count is a multiple."""
    while missing := -len(spans) % multiple:
        sizes = spans[:, 1] - spans[:, 0]
        largest = np.sort(np.argsort(-sizes, kind="stable")[:missing])
        largest = largest[sizes[largest] > 1]
        if not len(largest):
            return np.concatenate([spans, spans[:missing]])
        middle = spans[largest].sum(1) // 2
        spans = np.insert(spans, largest + 1, np.stack([middle, spans[largest, 1]], axis=1), axis=0)
        halved = largest + np.arange(len(largest))
        spans[halved, 1] = middle
    return spans
