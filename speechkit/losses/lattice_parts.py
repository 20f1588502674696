"""Parts of transducer lattices: rectangles of nodes, several of which are worked at together.

Only nodes that count are in a part: none of the padding, of a pruned lattice those inside its windows, and in
a backward pass those that paths visit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NEGLIGIBLE = 1.0
"""A node whose gradient is less than this many rounding errors of the utterance's largest is left out."""


class Rectangle(NamedTuple):
    """Nodes of an utterance: frames `start` to `end`, rows `low` to `high`; row u has read u labels.

    Attributes:
        utterance: of the batch.
        start: first frame.
        end: frame after the last.
        low: first row.
        high: row after the last.
    """

    utterance: int
    start: int
    end: int
    low: int
    high: int

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and rows."""
        return self.end - self.start, self.high - self.low

    def inside(self, larger: Rectangle, values: Tensor) -> Tensor:
        """The part `(t, u, ...)` of a larger rectangle's `(t', u', ...)`, a view."""
        frames = slice(self.start - larger.start, self.end - larger.start)
        return values[frames, self.low - larger.low : self.high - larger.low]

    @property
    def nodes(self) -> int:
        """How many they are."""
        return (self.end - self.start) * (self.high - self.low)

    def of(self, values: Tensor) -> Tensor:
        """The part `(t, u, ...)` of `(B, T, U + 1, ...)`, a view."""
        return values[self.utterance, self.start : self.end, self.low : self.high]


Part = list[Rectangle]
"""Rectangles whose nodes stand one after the other in the rows of a matrix."""


def whole(lengths: Iterable[int], token_lengths: Iterable[int]) -> list[Rectangle]:
    """The lattices of a batch."""
    return [Rectangle(i, 0, t, 0, u + 1) for i, (t, u) in enumerate(zip(lengths, token_lengths))]


def within(starts: Tensor, width: int, lengths: list[int], token_lengths: list[int]) -> list[Rectangle]:
    """What windows leave of the lattices: frames with the same window are a rectangle.

    Args:
        starts: `(B, T)` first row of each frame's window.
        width: rows in a window.
        lengths: `(B,)` frames.
        token_lengths: `(B,)` labels.
    """
    found = []
    for i, (lows, t, u) in enumerate(zip(starts.tolist(), lengths, token_lengths)):
        begin = 0
        for end in range(1, t + 1):
            if end == t or lows[end] != lows[begin]:
                found.append(Rectangle(i, begin, end, lows[begin], min(lows[begin] + width, u + 1)))
                begin = end
    return found


def visits(of_blank: Tensor, of_label: Tensor) -> np.ndarray:
    """`(B, T, U + 1)` which nodes have a gradient that is something beside the utterance's largest.

    Args:
        of_blank: `(B, T, U + 1)` gradients of the blanks' log-probabilities.
        of_label: `(B, T, U + 1)` those of the labels'.
    """
    size = of_blank.abs() + of_label.abs()
    least = NEGLIGIBLE * torch.finfo(size.dtype).eps * size.amax((1, 2), keepdim=True)
    return (~(size <= least)).cpu().numpy()  # what is not a number is something


def shrink(r: Rectangle, seen: np.ndarray, frames: int = 16) -> Iterator[Rectangle]:
    """What is left of a rectangle without the nodes that paths do not visit.

    Args:
        r: the rectangle.
        seen: from `visits`.
        frames: whose rows are cut alike; changes speed only.
    """
    for start in range(r.start, r.end, frames):
        end = min(start + frames, r.end)
        rows = seen[r.utterance, start:end, r.low : r.high].any(0).nonzero()[0]
        if len(rows):
            yield Rectangle(r.utterance, start, end, r.low + int(rows[0]), r.low + int(rows[-1]) + 1)


def pack(rectangles: Iterable[Rectangle], nodes: int) -> Iterator[Part]:
    """Parts of at most `nodes` nodes each (or a single frame of a rectangle); long rectangles are cut."""
    part: Part = []
    room = nodes
    for r in rectangles:
        rows = r.high - r.low
        start = r.start
        while start < r.end:
            fits = max(0, room // rows)
            if not fits and part:
                yield part
                part, room = [], nodes
                continue
            end = min(r.end, start + max(1, fits))
            part.append(r._replace(start=start, end=end))
            room -= part[-1].nodes
            start = end
    if part:
        yield part


def take(values: Tensor, part: Part) -> Tensor:
    """`(N,)` of `(B, T, U + 1)`: those of a part's nodes."""
    return torch.cat([r.of(values).reshape(-1) for r in part])


def put(target: Tensor, part: Part, values: Tensor) -> None:
    """Writes `(N,)` values of a part's nodes to their places in `(B, T, U + 1)`."""
    for r, block in pieces(part, values):
        r.of(target).copy_(block)


def pieces(part: Part, values: Tensor) -> Iterator[tuple[Rectangle, Tensor]]:
    """Each rectangle with its `(t, u, ...)` of `(N, ...)` values, a view."""
    sizes = [r.nodes for r in part]
    for r, block in zip(part, values.split(sizes)):
        yield r, block.unflatten(0, r.shape)
