"""Micro-batches of a plan to Batches: readers of the fields that a model requires, ahead of compute.

What a micro-batch becomes depends on the plan alone: no global random state, no worker's identity.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.data.archive import read_array
from speechkit.data.array_readers import ArrayLabels, Video
from speechkit.data.audio import read_audio
from speechkit.data.batch import Batch
from speechkit.data.collate import collate
from speechkit.data.crop import Crop, by_window, crop_features, crop_labels
from speechkit.data.labels import ARRAYS, label_table
from speechkit.data.manifest import Manifest, Ragged
from speechkit.data.plan import MicroBatch
from speechkit.data.tables import features_table
from speechkit.errors import BadSample, InputError, nearest


@dataclass
class Config:
    """Reading."""

    workers: int = 0
    """Loading processes; 0 loads in a thread beside the computation. Results do not depend on it."""
    ahead: int = 4
    """Micro-batches loaded ahead (by each process)."""
    max_bad: float = 0.005
    """Largest share of training utterances in an epoch that may turn out unreadable."""
    max_dropped: float = 0.05
    """Largest share of training utterances that may be left out before training: too short, too long, no
    known token, more tokens than frames."""

    def __post_init__(self) -> None:
        check_range("workers", self.workers, 0)
        check_range("ahead", self.ahead, 1)
        check_range("max_bad", self.max_bad, 0, 1)
        check_range("max_dropped", self.max_dropped, 0, 1)


@dataclass(frozen=True)
class Context:
    """What readers are made from.

    Attributes:
        manifest: the utterances.
        extractor: waveform to features, or None.
        augment: `(waveform, key, speed) -> waveform`, or None in evaluation.
        plain: True when `augment` changes nothing but speed, so that features dumped at that speed serve.
        tokens: the encoded text of each utterance, or None.
        bert_tokens: the same in BERT's word pieces, without [CLS] and [SEP].
        label_rates: labels a second of each field of frame labels, for crops.
    """

    manifest: Manifest
    extractor: Any = None
    augment: Callable[[np.ndarray, int, float], np.ndarray] | None = None
    plain: bool = True
    tokens: Ragged | None = None
    label_rates: Mapping[str, float] = field(default_factory=dict)
    bert_tokens: Ragged | None = None


class Sample:
    """One utterance while it is read; the waveform is decoded once for all fields."""

    def __init__(
        self, context: Context, utterance: int, speed: float, key: int, crop: Crop | None = None
    ) -> None:
        self.context, self.index, self.speed, self.key, self.crop = context, utterance, speed, key, crop
        self.id = context.manifest.ids[utterance]

    @functools.cached_property
    def whole(self) -> np.ndarray:
        """`(S,)` float32 after augmentation, before cropping."""
        manifest, i = self.context.manifest, self.index
        start, end = float(manifest.starts[i]), float(manifest.ends[i])
        # utt2num_samples counts samples of the file; a piece of a recording is cut in seconds.
        piece = {"fixed_rate": True} if math.isnan(start) else {"start": start, "end": end}
        entry = manifest.tables["wav.scp"][i]
        waveform = read_audio(entry, rate=manifest.rate, utterance=self.id, **piece)
        if self.context.augment is None:
            return waveform
        return self.context.augment(waveform, self.key, self.speed)

    @property
    def waveform(self) -> np.ndarray:
        """`(S,)` float32, the samples that are used."""
        if self.crop is None:
            return self.whole
        part = self.whole[self.crop.start : self.crop.start + self.crop.size]
        if len(part) < self.crop.size - 1:  # a piece of a recording may be a sample shorter than planned
            detail = (
                f"{len(self.whole)} samples; a crop of {self.crop.size} was to begin at {self.crop.start}"
            )
            raise BadSample(self.id, "shorter than utt2num_samples", detail)
        return part


class Reader(Protocol):
    """Makes one field."""

    tables: tuple[str, ...]
    """Tables of the data directories that it needs."""

    def __call__(self, sample: Sample) -> np.ndarray:
        """`(T, ...)` values of an utterance; raises BadSample."""


class Speech:
    """The waveform."""

    tables = ("wav.scp",)

    def __call__(self, sample: Sample) -> np.ndarray:
        return sample.waveform


class Features:
    """Dumped features when nothing but its speed would change the waveform, else computed from it."""

    tables = ("wav.scp",)

    def __call__(self, sample: Sample) -> np.ndarray:
        context = sample.context
        dumped = context.manifest.tables.get(features_table(sample.speed)) if context.plain else None
        if dumped is not None:
            try:
                features = read_array(dumped[sample.index])
            except InputError as error:
                raise BadSample(sample.id, "unreadable features", str(error)) from None
            crop = sample.crop
        elif by_window(context.extractor):
            features, crop = context.extractor(sample.waveform), None
        else:
            features, crop = context.extractor(sample.whole), sample.crop
        if crop is not None and features.ndim == 2:
            features = crop_features(features, crop, context.extractor)
        if features.ndim != 2 or features.shape[1] != context.extractor.dim:
            wanted = context.extractor.dim
            raise BadSample(
                sample.id, "wrong feature dimension", f"{features.shape}, the configuration makes {wanted}"
            )
        if not len(features):
            raise BadSample(sample.id, "no feature frame", f"{len(sample.waveform)} samples are too few")
        if not math.isfinite(float(features.sum())):
            raise BadSample(sample.id, "features are not finite", "NaN or infinity")
        return features


class Tokens:
    """Target ids."""

    tables = ("text",)

    def __call__(self, sample: Sample) -> np.ndarray:
        return sample.context.tokens[sample.index].astype(np.int64)


class BertTokens:
    """Ids in the linguistic vocabulary."""

    tables = ("text",)

    def __call__(self, sample: Sample) -> np.ndarray:
        return sample.context.bert_tokens[sample.index].astype(np.int64)


class Labels:
    """Frame labels of a table.

    Args:
        name: `kmeans` or `kmeans_<name>`.
    """

    def __init__(self, name: str) -> None:
        self.name, self.table = name, label_table(name)
        self.tables = (self.table,)

    def __call__(self, sample: Sample) -> np.ndarray:
        context = sample.context
        labels = context.manifest.labels[self.table][sample.index]
        if sample.speed != 1:
            raise ValueError(f"{self.table}: frame labels do not follow a change of speed")
        if sample.crop is not None:
            rate = context.label_rates[self.name]
            labels = crop_labels(labels, sample.crop, rate, context.manifest.rate)
        return labels.astype(np.int64)


READERS: dict[str, Callable[[], Reader]] = {
    "speech": Speech,
    "features": Features,
    "tokens": Tokens,
    "bert_tokens": BertTokens,
    "video": Video,
    **{name: functools.partial(ArrayLabels, name) for name in ARRAYS},
}
"""Field name -> its reader; further fields are further entries. Frame labels have names of their own."""


def make_reader(name: str) -> Reader:
    """The reader of a field; raises InputError for one that nothing reads."""
    if label_table(name) and name not in READERS:
        return Labels(name)
    if name not in READERS:
        raise InputError(f"the model requires '{name}', which no reader makes{nearest(name, list(READERS))}")
    return READERS[name]()


def tables_of(fields: Sequence[str]) -> list[str]:
    """Tables that the fields need; raises InputError for a field that nothing reads."""
    return list(dict.fromkeys(table for name in fields for table in make_reader(name).tables))


@dataclass(frozen=True)
class Loaded:
    """A micro-batch that was read.

    Attributes:
        batch: its readable utterances, or None when there is none.
        bad: utterance, reason and detail of the others.
    """

    batch: Batch | None
    bad: list[tuple[str, str, str]]


class BatchReader:
    """Reads micro-batches; picklable, and the same for any caller in any process.

    A batch has no field of a table that all of its data directories lack (`Manifest.absent`); where only some
    do, their utterances have a sequence of length 0.

    Args:
        context: what the readers are made from.
        fields: names of the fields to read.
    """

    def __init__(self, context: Context, fields: Sequence[str]) -> None:
        self.context = context
        self.readers = {name: make_reader(name) for name in fields}

    def __call__(self, micro_batch: MicroBatch) -> Loaded:
        """Reads the utterances; those that cannot be used are set aside."""
        languages = self.context.manifest.tables.get("utt2lang")
        good, bad, readers = [], [], self._readers_of(micro_batch)
        columns = (micro_batch.utterances, micro_batch.speeds, micro_batch.keys)
        crops = map(Crop._make, micro_batch.crops.tolist()) if micro_batch.crops is not None else repeat(None)
        for index, speed, key, crop in zip(*(column.tolist() for column in columns), crops):
            sample = Sample(self.context, index, speed, key, crop)
            try:
                row = {name: _tensor(reader(sample)) for name, reader in readers.items()}
            except BadSample as error:
                bad.append((sample.id, error.reason, error.detail))
            else:
                good.append((sample.id, key, row, languages[index] if languages is not None else ""))
        if not good:
            return Loaded(None, bad)
        ids, keys, rows, codes = zip(*good)
        return Loaded(collate(ids, keys, rows, codes if languages is not None else None), bad)

    def _readers_of(self, micro_batch: MicroBatch) -> dict[str, Reader]:
        """Those of which some utterance has all tables."""
        absent = self.context.manifest.absent

        def lacking(reader: Reader) -> bool:
            tables = (absent[name] for name in reader.tables if name in absent)
            return any(table[micro_batch.utterances].all() for table in tables)

        return {name: reader for name, reader in self.readers.items() if not lacking(reader)}


@dataclass(frozen=True)
class MixedReader:
    """Reads the micro-batches of speech with one reader and those of text with another."""

    speech: BatchReader
    text: BatchReader

    def __call__(self, micro_batch: MicroBatch) -> Loaded:
        """Reads the utterances; those that cannot be used are set aside."""
        return (self.text if micro_batch.unit == "tokens" else self.speech)(micro_batch)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def read_ahead(
    read: Callable[[MicroBatch], Loaded], micro_batches: Iterable[MicroBatch], config: Config
) -> Iterator[Loaded]:
    """Reads micro-batches in order, some ahead of their use; close the generator to stop.

    Raises:
        InputError: a loading process was killed.
    """
    return (
        _in_processes(read, micro_batches, config)
        if config.workers
        else _in_thread(read, micro_batches, config)
    )


def _in_thread(read: Callable, micro_batches: Iterable, config: Config) -> Iterator[Loaded]:
    pool, waiting = ThreadPoolExecutor(1), deque()
    try:
        for micro_batch in micro_batches:
            waiting.append(pool.submit(read, micro_batch))
            if len(waiting) > config.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Reads(torch.utils.data.Dataset):
    def __init__(self, read: Callable) -> None:
        self.read = read

    def __getitem__(self, micro_batch: MicroBatch) -> Loaded:
        return self.read(micro_batch)


def _in_processes(read: Callable, micro_batches: Iterable, config: Config) -> Iterator[Loaded]:
    loader = torch.utils.data.DataLoader(
        _Reads(read),
        sampler=micro_batches,
        batch_size=None,
        num_workers=config.workers,
        prefetch_factor=config.ahead,
        generator=torch.Generator(),  # else the global one would be drawn from
        worker_init_fn=_start_worker,
    )
    running = iter(loader)
    try:
        yield from running
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"a loading process was killed ({error}); out of memory? lower data.workers or data.ahead"
        ) from error
    finally:
        # An error's traceback keeps `running` alive to the program's end, which would then wait for ever for
        # workers that ignore SIGTERM; only this private method ends them now.
        running._shutdown_workers()


def _start_worker(number: int) -> None:
    import signal

    torch.set_num_threads(1)
    # Signals go to the whole process group; the training process decides, the workers go on until closed.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
