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
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from speechkit.config import check_range
from speechkit.data import text_plan
from speechkit.data.augment import speed_samples
from speechkit.data.crop import STEP, crop_sizes, crop_starts
from speechkit.data.sampling import draw, draws_of_sources
from speechkit.data.spans import Budget, cut, halve
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
    crop_seconds: float | None = None
    """Longest part of a training utterance that is used, at a place drawn anew each time; null for all."""
    crop_to_shortest: bool = False
    """Cut the training utterances of a micro-batch to its shortest, so that nothing is padded; they then
    differ by no more than two buckets."""
    crop_align: Literal["hop", "free"] = "hop"
    """Where crops may begin: every 40 ms, a whole number of frames and labels of any model; or at any sample,
    as published, which shifts labels by up to half of their length. `free` is for models of samples alone."""
    min_seconds: float = 0.0
    """Shorter training utterances are left out and listed (seconds, before speed perturbation)."""
    max_seconds: float = 60.0
    """Longer training utterances are left out and listed (seconds, before speed perturbation)."""
    max_tokens: int | None = None
    """Training utterances with more tokens are left out and listed; null for any number."""
    sources: Literal["folders", "languages"] = "folders"
    """What is mixed by `source_power`: the data directories, or the languages of utt2lang."""
    source_power: float = 1.0
    """Share of a source in an epoch ~ (its own share) ^ source_power; 1 uses each utterance once, 0 makes
    the shares equal. An epoch always has as many draws as there are utterances."""
    source_count: Literal["hours", "utterances"] = "hours"
    """What shares are of."""
    source_batches: Literal["mixed", "single"] = "mixed"
    """Whether utterances of different sources go into one micro-batch."""
    text: text_plan.Config = field(default_factory=text_plan.Config)
    """Sentences of text sets, which have micro-batches of their own; all else here is about speech."""

    def __post_init__(self) -> None:
        check_range("seconds", self.seconds, 0.1)
        check_range("quadratic", self.quadratic, 0)
        check_range("micro_batches", self.micro_batches, 1)
        check_range("max_utterances", self.max_utterances, 1)
        if self.crop_seconds is not None:
            check_range("crop_seconds", self.crop_seconds, 0.04)
        check_range("bucket_ratio", self.bucket_ratio, 1.001)
        check_range("min_seconds", self.min_seconds, 0)
        check_range("max_seconds", self.max_seconds, self.min_seconds)
        if self.max_tokens is not None:
            check_range("max_tokens", self.max_tokens, 1)
        check_range("source_power", self.source_power, 0, 1)

    @property
    def crops(self) -> bool:
        """Whether training utterances are cut."""
        return self.crop_seconds is not None or self.crop_to_shortest


Unit = Literal["seconds", "tokens"]


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
        length: seconds of audio after speed perturbation and cropping, without padding; or tokens of text.
        padded: the same with padding to the longest.
        crops: `(B, 2)` int64 start and size of the part of each utterance that is used, in samples after
            speed perturbation; None for all of it.
        unit: of the lengths: "seconds" of speech, "tokens" of text.
    """

    epoch: int
    utterances: np.ndarray
    speeds: np.ndarray
    keys: np.ndarray
    length: float
    padded: float
    crops: np.ndarray | None = None
    unit: Unit = "seconds"


@dataclass(frozen=True)
class _Epoch:
    """A planned epoch: micro-batch m holds positions `spans[m, 0]:spans[m, 1]` of the flat arrays."""

    number: int
    utterances: np.ndarray
    speeds: np.ndarray
    keys: np.ndarray
    lengths: np.ndarray
    spans: np.ndarray
    crops: np.ndarray | None
    unit: Unit

    def micro_batch(self, m: int) -> MicroBatch:
        part = slice(*self.spans[m])
        lengths = self.lengths[part]
        length, padded = float(lengths.sum()), float(lengths.max() * len(lengths))
        columns = (self.utterances[part], self.speeds[part], self.keys[part])
        crops = self.crops[part] if self.crops is not None else None
        return MicroBatch(self.number, *columns, length, padded, crops, self.unit)


class BatchPlan:
    """The updates of a training run, addressed by their number.

    Every epoch uses each utterance once (unless `source_power` < 1), at a speed drawn from its key, all of
    it or a crop drawn from its key. Utterances are sorted by length bucket, shuffled inside buckets, and
    cut into micro-batches of at most the budget; an utterance above the budget is alone. When the count
    is no multiple of `micro_batches`, the largest micro-batches are halved until it is, so the last update
    of an epoch is complete and no utterance is dropped or repeated; only when all hold one utterance
    are the first ones used twice.

    Args:
        ids: `(N,)` uint64 from `hash_ids`.
        seconds: `(N,)` durations at speed 1; of sentences their tokens, and so is the budget.
        config: budgets.
        seed: seed of speeds and order.
        speeds: speed factors that are drawn with equal probability.
        sources: `(N,)` index of the data set (or language) of each utterance, or None for one.
        shuffle: False for evaluation: one pass, shortest first, speed 1, no crops.
        rate: samples a second, which crops are counted in.
        starts: the first update of each epoch planned so far, from `starts` of an equal plan; it
            makes seeking after a restart independent of the epochs before.
        unit: "tokens" for text.

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
        rate: int = 16000,
        starts: Sequence[int] = (0,),
        unit: Unit = "seconds",
    ) -> None:
        option, what = ("plan", "utterance") if unit == "seconds" else ("plan.text", "sentence")
        if not len(ids):
            raise InputError(f"the data set has no usable {what}")
        if len(ids) < config.micro_batches:
            raise InputError(
                f"{option}.micro_batches={config.micro_batches}, but the data set has only {len(ids)} {what}s"
            )
        self.ids, self.seconds, self.config, self.seed = ids, np.asarray(seconds, np.float64), config, seed
        self.speeds = np.asarray(speeds if shuffle else (1.0,), np.float64)
        self.sources = np.zeros(len(ids), np.int64) if sources is None else np.asarray(sources)
        self.shuffle, self.rate, self.unit = shuffle, rate, unit
        self.crops = shuffle and config.crops
        self.starts = [int(start) for start in starts]
        self._draws = None
        if config.source_power != 1 and len(np.unique(self.sources)) > 1:
            self._draws = draws_of_sources(
                self.seconds, self.sources, config.source_power, config.source_count
            )
        self._cache: dict[int, _Epoch] = {}
        self._lock = threading.Lock()  # a loading thread reads ahead of the training loop

    @property
    def parts(self) -> list[BatchPlan]:
        """The plans of one unit that it is made of: itself; `text_plan.MixedPlan` has two."""
        return [self]

    def begin(self, epoch: int) -> int:
        """The first update of an epoch; plans only epochs never reached before."""
        while len(self.starts) <= epoch:
            last = len(self.starts) - 1
            end = self.starts[last] + self.updates(last)
            with self._lock:
                if len(self.starts) == last + 1:
                    self.starts.append(end)
        return self.starts[epoch]

    def locate(self, update: int) -> tuple[int, int]:
        """The epoch of an update and its row there; plans only epochs never reached before."""
        while update >= self.starts[-1]:
            self.begin(len(self.starts))
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
        arrays = [self.ids[plan.utterances], plan.speeds, plan.keys, plan.spans]
        arrays += [plan.crops] if plan.crops is not None else []
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
        if self.crops and self.config.crop_seconds is not None:
            lengths = np.minimum(lengths, self.config.crop_seconds)
        groups = self._groups(picked)
        if self.shuffle:
            # A tie of two hashes is broken by the id, so the order of the manifest never matters.
            buckets = np.floor(np.log(np.maximum(lengths, 1e-3)) / np.log(self.config.bucket_ratio))
            order = np.lexsort((self.ids[picked], mix(keys, 2), buckets, groups))
        else:
            order = np.lexsort((self.ids[picked], lengths))
        spans = self._spans(lengths[order], groups[order])
        picked, speeds, lengths = picked[order], speeds[order], lengths[order]
        signed = (keys[order] >> np.uint64(1)).astype(np.int64)
        crops = self._crops(picked, speeds, signed, spans) if self.crops else None
        if crops is not None:
            lengths = crops[:, 1] / self.rate
        if self.shuffle:
            spans = spans[np.argsort(mix(self.seed, number, 3, np.arange(len(spans))), kind="stable")]
        return _Epoch(number, picked, speeds, signed, lengths, spans, crops, self.unit)

    def _sample(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Utterances of an epoch and, for one that comes several times, which time it is."""
        everything = np.arange(len(self.ids))
        if self._draws is None:
            return everything, np.zeros(len(everything), np.int64)
        repeats = draw(self.ids, self.sources, self._draws, self.seed, epoch)
        picked = np.repeat(everything, repeats)
        return picked, np.arange(len(picked)) - np.repeat(np.cumsum(repeats) - repeats, repeats)

    def _groups(self, picked: np.ndarray) -> np.ndarray:
        """What may not be mixed in a micro-batch."""
        single = self.shuffle and self.config.source_batches == "single"
        return self.sources[picked] if single else np.zeros(len(picked), np.int64)

    def _spans(self, lengths: np.ndarray, groups: np.ndarray) -> np.ndarray:
        config, to_shortest = self.config, self.crops and self.config.crop_to_shortest
        budget = Budget(
            config.seconds,
            config.quadratic,
            config.max_utterances,
            to_shortest,
            config.bucket_ratio**2 if to_shortest else np.inf,
        )
        return halve(cut(lengths, groups, budget), config.micro_batches)

    def _crops(
        self, picked: np.ndarray, speeds: np.ndarray, keys: np.ndarray, spans: np.ndarray
    ) -> np.ndarray:
        """`(N, 2)` start and size of the crop at each position."""
        config = self.config
        whole = np.rint(self.seconds[picked] * self.rate).astype(np.int64)
        samples = speed_samples(whole, speeds)
        longest = None if config.crop_seconds is None else round(config.crop_seconds * self.rate)
        sizes = crop_sizes(samples, spans, longest, config.crop_to_shortest)
        step = STEP if config.crop_align == "hop" else 1
        return np.stack([crop_starts(keys, samples, sizes, step), sizes], axis=1)


def deal(row: list[MicroBatch], rank: int, world: int) -> list[MicroBatch]:
    """The micro-batches of one rank; the i-th has the global index `rank + i * world`."""
    return row[rank::world]
