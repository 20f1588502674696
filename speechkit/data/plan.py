"""Batch plans: which utterances, at which speeds, form which update; known before any data is read.

A plan is a pure function of the utterances (ids and durations), the configuration, the seed and the
epoch. A row is one update: `micro_batches` global micro-batches, dealt round-robin to ranks and
accumulation steps, so that the same updates are made on any number of ranks that divides it.
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.files import hash_bytes
from speechkit.hashing import mix


@dataclass
class Config:
    """How utterances are grouped."""

    seconds: float = 120.0
    """Budget of a micro-batch in seconds of padded audio: rows x (longest + quadratic x longest^2)."""
    quadratic: float = 0.0
    """Extra cost of long utterances, in 1/seconds; about 0.03 evens out the memory of self-attention."""
    micro_batches: int = 1
    """Micro-batches in one update, over all ranks and accumulation steps; a multiple of the ranks."""
    max_utterances: int = 256
    """Most utterances in a micro-batch."""
    bucket_ratio: float = 1.1
    """Longest over shortest utterance of a length bucket; utterances are shuffled inside a bucket."""
    min_seconds: float = 0.0
    """Shorter training utterances are left out and listed (seconds, before speed perturbation)."""
    max_seconds: float = 60.0
    """Longer training utterances are left out and listed (seconds, before speed perturbation)."""
    source_power: float = 1.0
    """Sampling of several data sets: p ~ (share of seconds) ^ source_power; 1 uses each utterance once."""

    def __post_init__(self) -> None:
        check_range("seconds", self.seconds, 0.1)
        check_range("quadratic", self.quadratic, 0)
        check_range("micro_batches", self.micro_batches, 1)
        check_range("max_utterances", self.max_utterances, 1)
        check_range("bucket_ratio", self.bucket_ratio, 1.001)
        check_range("min_seconds", self.min_seconds, 0)
        check_range("max_seconds", self.max_seconds, self.min_seconds)
        check_range("source_power", self.source_power, 0, 1)


def hash_ids(ids: Sequence[str]) -> np.ndarray:
    """64-bit hash of each id, `(N,)` uint64, independent of its neighbours."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, np.uint64)


@dataclass(frozen=True)
class MicroBatch:
    """Utterances that go through the model together.

    Attributes:
        epoch: from 0.
        utterances: `(B,)` int64 indices into the manifest.
        speeds: `(B,)` float64 speed factors.
        keys: `(B,)` int64 hashes of seed, epoch and utterance, for its augmentation and masks.
        seconds: audio after speed perturbation, without padding.
        padded: the same with padding to the longest.
    """

    epoch: int
    utterances: np.ndarray
    speeds: np.ndarray
    keys: np.ndarray
    seconds: float
    padded: float


@dataclass(frozen=True)
class _Epoch:
    """A planned epoch: micro-batch m holds positions `spans[m, 0]:spans[m, 1]` of the flat arrays."""

    number: int
    utterances: np.ndarray
    speeds: np.ndarray
    keys: np.ndarray
    lengths: np.ndarray
    spans: np.ndarray

    def micro_batch(self, m: int) -> MicroBatch:
        part = slice(*self.spans[m])
        lengths = self.lengths[part]
        seconds, padded = float(lengths.sum()), float(lengths.max() * len(lengths))
        return MicroBatch(
            self.number, self.utterances[part], self.speeds[part], self.keys[part], seconds, padded
        )


class BatchPlan:
    """The updates of a training run, addressed by their number.

    Every epoch uses each utterance once (unless `source_power` < 1), at a speed drawn from its key.
    Utterances are sorted by length bucket, shuffled inside buckets, and cut into micro-batches of at
    most the budget; an utterance above the budget is alone. When the count is no multiple of
    `micro_batches`, the largest micro-batches are halved until it is, so the last update of an
    epoch is complete and no utterance is dropped or repeated; only when all hold one utterance
    are the first ones used twice.

    Args:
        ids: `(N,)` uint64 from `hash_ids`.
        seconds: `(N,)` durations at speed 1.
        config: budgets.
        seed: seed of speeds and order.
        speeds: speed factors that are drawn with equal probability.
        sources: `(N,)` index of the data set of each utterance, or None for one set.
        shuffle: False for evaluation: one pass, shortest first, speed 1.
        starts: the first update of each epoch planned so far, from `starts` of an equal plan; it
            makes seeking after a restart independent of the epochs before.

    Raises:
        InputError: no utterances, or fewer than `micro_batches`.
    """

    def __init__(
        self,
        ids: np.ndarray,
        seconds: np.ndarray,
        config: Config,
        seed: int = 0,
        *,
        speeds: Sequence[float] = (1.0,),
        sources: np.ndarray | None = None,
        shuffle: bool = True,
        starts: Sequence[int] = (0,),
    ) -> None:
        if not len(ids):
            raise InputError("the data set has no usable utterance")
        if len(ids) < config.micro_batches:
            raise InputError(
                f"plan.micro_batches={config.micro_batches}, but the data set has only {len(ids)} utterances"
            )
        self.ids, self.seconds, self.config, self.seed = ids, np.asarray(seconds, np.float64), config, seed
        self.speeds = np.asarray(speeds if shuffle else (1.0,), np.float64)
        self.sources = np.zeros(len(ids), np.int64) if sources is None else np.asarray(sources)
        self.shuffle = shuffle
        self.starts = [int(start) for start in starts]
        self._cache: dict[int, _Epoch] = {}
        self._lock = threading.Lock()  # a loading thread reads ahead of the training loop

    def locate(self, update: int) -> tuple[int, int]:
        """The epoch of an update and its row there; plans only epochs never reached before."""
        while update >= self.starts[-1]:
            last = len(self.starts) - 1
            end = self.starts[-1] + self.updates(last)
            if update < end:
                return last, update - self.starts[-1]
            with self._lock:
                if len(self.starts) == last + 1:
                    self.starts.append(end)
        epoch = bisect_right(self.starts, update) - 1
        return epoch, update - self.starts[epoch]

    def row(self, update: int) -> list[MicroBatch]:
        """The global micro-batches of an update, counted from 0 over all epochs."""
        number, row = self.locate(update)
        epoch, size = self._epoch(number), self.config.micro_batches
        return [epoch.micro_batch(m) for m in range(row * size, (row + 1) * size)]

    def costliest(self, epoch: int) -> MicroBatch:
        """The micro-batch of an epoch that fills the budget most: when it fits into memory, all do."""
        plan = self._epoch(epoch)
        batches = [plan.micro_batch(m) for m in range(len(plan.spans))]
        quadratic = self.config.quadratic
        return max(batches, key=lambda b: b.padded * (1 + quadratic * b.padded / len(b.utterances)))

    def updates(self, epoch: int) -> int:
        """Updates in an epoch; it differs a little between epochs when speeds do."""
        return len(self._epoch(epoch).spans) // self.config.micro_batches

    def hash(self, epoch: int) -> str:
        """Hash of everything the plan decides about an epoch."""
        plan = self._epoch(epoch)
        arrays = (self.ids[plan.utterances], plan.speeds, plan.keys, plan.spans)
        return hash_bytes(*(np.ascontiguousarray(array).tobytes() for array in arrays))

    def _epoch(self, number: int) -> _Epoch:
        with self._lock:
            if number not in self._cache:
                if len(self._cache) > 2:
                    del self._cache[min(self._cache)]
                self._cache[number] = self._plan(number)
            return self._cache[number]

    def _plan(self, number: int) -> _Epoch:
        picked, copies = self._sample(number)
        keys = mix(self.seed, number, self.ids[picked], copies)
        speeds = self.speeds[mix(keys, 1) % np.uint64(len(self.speeds))]
        lengths = self.seconds[picked] / speeds
        if self.shuffle:
            # A tie of two hashes is broken by the id, so the order of the manifest never matters.
            buckets = np.floor(np.log(np.maximum(lengths, 1e-3)) / np.log(self.config.bucket_ratio))
            order = np.lexsort((self.ids[picked], mix(keys, 2), buckets))
        else:
            order = np.lexsort((self.ids[picked], lengths))
        spans = _halve(_cut(lengths[order], self.config), self.config.micro_batches)
        if self.shuffle:
            spans = spans[np.argsort(mix(self.seed, number, 3, np.arange(len(spans))), kind="stable")]
        signed = (keys >> np.uint64(1)).astype(np.int64)
        return _Epoch(number, picked[order], speeds[order], signed[order], lengths[order], spans)

    def _sample(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Utterances of an epoch and, for one that comes several times, which time it is."""
        everything = np.arange(len(self.ids))
        if self.config.source_power == 1 or self.sources.max() == 0:
            return everything, np.zeros(len(everything), np.int64)
        share = np.bincount(self.sources, self.seconds) / self.seconds.sum()
        wanted = share**self.config.source_power
        times = (wanted / wanted.sum() / np.maximum(share, 1e-12))[self.sources]
        chance = mix(self.seed, epoch, 4, self.ids) / np.float64(2**64)
        repeats = np.floor(times + chance).astype(np.int64)
        picked = np.repeat(everything, repeats)
        return picked, np.arange(len(picked)) - np.repeat(np.cumsum(repeats) - repeats, repeats)


def deal(row: list[MicroBatch], rank: int, world: int) -> list[MicroBatch]:
    """The micro-batches of one rank; the i-th has the global index `rank + i * world`."""
    return row[rank::world]


def _cut(lengths: np.ndarray, config: Config) -> np.ndarray:
    """Cuts utterances in the given order into spans `(M, 2)` within the budget."""
    starts, start, longest = [0], 0, 0.0
    for position, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        rows = position - start + 1
        cost = rows * (longest + config.quadratic * longest * longest)
        if rows > 1 and (cost > config.seconds or rows > config.max_utterances):
            starts.append(position)
            start, longest = position, length
    return np.stack([starts, [*starts[1:], len(lengths)]], axis=1).astype(np.int64)


def _halve(spans: np.ndarray, multiple: int) -> np.ndarray:
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
