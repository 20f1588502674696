"""Data sets as a few arrays: nothing per utterance that a forked worker would copy by touching it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.data.feature_record import check_features
from speechkit.data.kaldi_dir import DataDir, read_data_dir
from speechkit.data.labels import is_label_table, read_labels
from speechkit.data.plan import hash_ids
from speechkit.errors import InputError
from speechkit.files import hash_bytes


class Ragged:
    """Sequences of whole numbers of any lengths, in one array.

    Args:
        flat: `(sum of lengths,)` all of them, one after the other.
        offsets: `(N + 1,)` where each begins, and the end of the last.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray) -> None:
        self.flat, self.offsets = flat, offsets

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]], dtype: type = np.int32) -> Ragged:
        """Packs sequences."""
        parts = [np.asarray(sequence, dtype) for sequence in sequences]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(np.concatenate(parts) if parts else np.zeros(0, dtype), offsets)

    @property
    def lengths(self) -> np.ndarray:
        """`(N,)` int64."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def select(self, index: np.ndarray) -> Ragged:
        """The sequences at these positions."""
        return Ragged.of((self[i] for i in index), self.flat.dtype.type)


class Strings:
    """Texts as UTF-8 in one array.

    Args:
        packed: the bytes of each text.
    """

    def __init__(self, packed: Ragged) -> None:
        self.packed = packed

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """Packs texts."""
        return cls(Ragged.of((np.frombuffer(text.encode(), np.uint8) for text in texts), np.uint8))

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, i: int) -> str:
        return self.packed[i].tobytes().decode()

    def select(self, index: np.ndarray) -> Strings:
        """The texts at these positions."""
        return Strings(self.packed.select(index))


@dataclass(frozen=True)
class Manifest:
    """The utterances of one or several data sets.

    Attributes:
        rate: samples a second.
        ids: utterance ids.
        hashes: `(N,)` uint64 hashes of the ids.
        samples: `(N,)` int64 lengths at speed 1; 0 for sentences that are only text.
        starts: `(N,)` seconds where the utterance begins in its recording, NaN for a whole recording.
        ends: `(N,)` seconds.
        sources: `(N,)` which data set each is from.
        tables: name -> value of each utterance; `wav.scp` is by utterance here.
        labels: name of a table of frame labels -> the labels of each utterance, none where it has no row.
        absent: name of a table that some data sets do not have -> `(N,)` bool, True for their utterances, of
            which the table holds "".
    """

    rate: int
    ids: Strings
    hashes: np.ndarray
    samples: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    sources: np.ndarray
    tables: dict[str, Strings]
    labels: dict[str, Ragged] = field(default_factory=dict)
    absent: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> np.ndarray:
        """`(N,)` durations at speed 1."""
        return self.samples / self.rate

    @property
    def hash(self) -> str:
        """Hash of what training sees of the data: ids, lengths, cuts, tables, labels, no paths of audio."""
        arrays = [self.hashes, self.samples, self.starts, self.ends, self.sources]
        arrays += [self.tables[name].packed.flat for name in sorted(self.tables) if not name.endswith(".scp")]
        for name in sorted(self.labels):
            arrays += [self.labels[name].flat, self.labels[name].offsets]
        arrays += [self.absent[name] for name in sorted(self.absent)]
        return hash_bytes(*(array.tobytes() for array in arrays))

    def select(self, index: np.ndarray) -> Manifest:
        """The utterances at these positions."""
        return replace(
            self,
            ids=self.ids.select(index),
            tables={name: table.select(index) for name, table in self.tables.items()},
            labels={name: labels.select(index) for name, labels in self.labels.items()},
            absent={name: absent[index] for name, absent in self.absent.items()},
            **{
                name: getattr(self, name)[index]
                for name in ("hashes", "samples", "starts", "ends", "sources")
            },
        )


def read_manifest(
    folders: Sequence[str | Path],
    required: Iterable[str] = ("wav.scp",),
    optional: Iterable[str] = (),
    rate: int = 16000,
    features: Any = None,
    partial: Iterable[str] = (),
) -> Manifest:
    """Reads data directories, one source each.

    Args:
        folders: dump directories with utt2num_samples (or segments).
        required: tables every directory must have for every utterance, such as "text"; of frame labels
            (km.txt) rows may be missing.
        optional: tables that are used when all directories have them.
        rate: samples a second behind utt2num_samples.
        features: configuration of the frontend, which dumped features must have been made with; None
            when nobody reads them.
        partial: required tables that a directory may lack, but not in part, as long as one has them.

    Raises:
        InputError: no directory, a table or a row missing, an id in two directories, features of
            another configuration.
        ProblemsError: a directory that is not valid.
    """
    sets = [read_data_dir(folder, labels=False) for folder in folders]
    if not sets:
        raise InputError("no data directory given")
    _check_disjoint(sets)
    required, partial = list(required), set(partial)
    names = [name for name in required if not is_label_table(name)]
    names += [name for name in optional if all(_rows(data, name) for data in sets)]
    if features is not None and any(fnmatchcase(name, "feats*.scp") for name in names):
        for data in sets:
            check_features(data.path, features)
    ids = [utterance for data in sets for utterance in data.utterances]
    sources = np.repeat(np.arange(len(sets)), [len(data.utterances) for data in sets])
    lacking = {name: np.array([not _rows(data, name) for data in sets]) for name in partial}
    lacking = {name: without for name, without in lacking.items() if without.any() and not without.all()}
    pieces = [data.segments.get(utterance) for data in sets for utterance in data.utterances]
    return Manifest(
        rate,
        Strings.of(ids),
        hash_ids(ids),
        np.array([_samples(data, u, rate) for data in sets for u in data.utterances], np.int64),
        np.array([piece.start if piece else np.nan for piece in pieces]),
        np.array([piece.end if piece else np.nan for piece in pieces]),
        sources,
        _columns(sets, names, lacking),
        {name: _labels(sets, name) for name in required if is_label_table(name)},
        {name: without[sources] for name, without in lacking.items()},
    )


def read_texts(folders: Sequence[str | Path], optional: Iterable[str] = ("utt2lang",)) -> Manifest:
    """Reads `text` alone, of text sets or of directories with audio, one source each; all lengths are 0.

    Args:
        folders: data directories.
        optional: further tables that are used when all directories have them.

    Raises:
        InputError: no directory, no `text`, or an id in two directories.
        ProblemsError: a directory that is not valid.
    """
    sets = [read_data_dir(folder, need_audio=False, labels=False) for folder in folders]
    for data in sets:
        if not data.text:
            raise InputError(f"{data.path / 'text'}: no sentences, and they are needed")
    _check_disjoint(sets)
    ids = [utterance for data in sets for utterance in data.utterances]
    names = ["text", *(name for name in optional if all(_rows(data, name) for data in sets))]
    zeros, nowhere = np.zeros(len(ids), np.int64), np.full(len(ids), np.nan)
    return Manifest(
        rate=1,
        ids=Strings.of(ids),
        hashes=hash_ids(ids),
        samples=zeros,
        starts=nowhere,
        ends=nowhere,
        sources=np.repeat(np.arange(len(sets)), [len(data.utterances) for data in sets]),
        tables=_columns(sets, names),
    )


def _columns(
    sets: list[DataDir], names: list[str], lacking: Mapping[str, np.ndarray] | None = None
) -> dict[str, Strings]:
    """Tables by name; `lacking` says of each set whether it has no such table, and then has ""."""

    def column(name: str) -> Iterator[str]:
        for i, data in enumerate(sets):
            empty = name in (lacking or {}) and lacking[name][i]
            for utterance in data.utterances:
                yield "" if empty else _value(data, name, utterance)

    return {name: Strings.of(column(name)) for name in names}


def _check_disjoint(sets: list[DataDir]) -> None:
    owner: dict[str, Path] = {}
    for data in sets:
        if not data.utterances:
            raise InputError(f"{data.path}: no utterances")
        for utterance in data.utterances:
            if utterance in owner:
                raise InputError(f"utterance {utterance} is in both {owner[utterance]} and {data.path}")
            owner[utterance] = data.path


def _labels(sets: list[DataDir], name: str) -> Ragged:
    """The labels of all utterances in one array; no labels for one without a row."""
    none, parts = np.zeros(0, np.int16), []
    for data in sets:
        found = read_labels(data.path / name, data.utterances)
        parts += [found.get(utterance, none) for utterance in data.utterances]
    wide = any(part.dtype == np.int32 for part in parts)
    return Ragged.of(parts, np.int32 if wide else np.int16)


def _rows(data: DataDir, name: str) -> dict[str, str]:
    return {"wav.scp": data.wav, "text": data.text}.get(name, data.tables.get(name, {}))


def _value(data: DataDir, name: str, utterance: str) -> str:
    rows = _rows(data, name)
    if not rows:
        raise InputError(f"{data.path / name}: no such file, and it is needed")
    key = data.recording(utterance) if name == "wav.scp" else utterance
    if key not in rows:
        raise InputError(f"{data.path / name}: no row for {key}")
    return rows[key]


def _samples(data: DataDir, utterance: str, rate: int) -> int:
    if data.segments:
        piece = data.segments[utterance]
        return round((piece.end - piece.start) * rate)
    counts = data.tables.get("utt2num_samples", {})
    if utterance not in counts:
        raise InputError(
            f"{data.path / 'utt2num_samples'}: no row for {utterance}; `speechkit format` makes this file"
        )
    return int(counts[utterance])
