"""A sample of frames that is too large for the memory, drawn once and read in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechkit.clustering.frames import Source, refuse
from speechkit.data.parallel import AHEAD, run_parallel
from speechkit.errors import BadSample

# Frames taken from one utterance, at least: so many different ones are in the sample.
SPAN = 256
WAITING_BYTES = 2 << 30  # chunks read ahead


class Span(NamedTuple):
    """Neighbouring frames of an utterance; `source` is the place in the list of sources."""

    source: int
    utterance: str
    start: int
    count: int


def draw_chunks(sources: Sequence[Source], max_frames: int, batch: int, seed: int) -> list[list[Span]]:
    """A sample of all utterances, in random order, in chunks of at least `batch` frames but the last.

    Args:
        sources: the data.
        max_frames: at most so many in all, evenly from the utterances, but `SPAN` of each.
        batch: frames of a chunk.
        seed: of the draw.
    """
    items = [(index, utterance) for index, source in enumerate(sources) for utterance in source.utterances]
    share, random = max(SPAN, -(-max_frames // len(items))), np.random.default_rng(seed)
    chunks: list[list[Span]] = [[]]
    size = total = 0
    for place in random.permutation(len(items)):
        index, utterance = items[place]
        there = sources[index].frames(utterance)
        count = min(there, share, max_frames - total)
        if count <= 0:
            continue
        if size >= batch:
            chunks.append([])
            size = 0
        chunks[-1].append(Span(index, utterance, int(random.integers(0, there - count + 1)), count))
        size, total = size + count, total + count
    return chunks


@dataclass(frozen=True)
class ChunkReader:
    """Reads the chunks of a sample, in worker processes.

    Args:
        sources: the data.
        chunks: see `draw_chunks`.
        columns: dimensions to keep.
        jobs: processes.
    """

    sources: Sequence[Source]
    chunks: list[list[Span]]
    columns: slice
    jobs: int = 1

    def __call__(self, start: int, end: int) -> Iterator[Tensor]:
        """`(N, F)` fp32 of chunks start to end; raises InputError for an utterance that cannot be used."""
        source, *rest = self.chunks[0][0]
        first = self.sources[source].part(*rest)
        size = 4 * first.shape[1] * max(sum(span.count for span in chunk) for chunk in self.chunks)
        jobs = min(self.jobs, max(1, WAITING_BYTES // (AHEAD * size)))
        for found in run_parallel(self.read, self.chunks[start:end], jobs):
            if not isinstance(found, np.ndarray):
                refuse(", ".join(str(source.path) for source in self.sources), found)
            yield torch.from_numpy(found)

    def read(self, chunk: list[Span]) -> np.ndarray | list[BadSample]:
        """One chunk, or what was wrong with it."""
        parts, problems = [], []
        for span in chunk:
            try:
                part = self.sources[span.source].part(span.utterance, span.start, span.count)
                if len(part) != span.count:
                    raise BadSample(span.utterance, "fewer frames than counted", "make them again")
                parts.append(part[:, self.columns])
            except BadSample as error:
                problems.append(error)
        return problems or np.concatenate(parts)
