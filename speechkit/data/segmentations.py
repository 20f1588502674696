"""Which phone is spoken when: TIMIT's .phn files, CTM, Praat's TextGrids, and phones.txt of a data directory.

A segmentation belongs to a data directory and is read for one utterance at a time. What lies in a single file
(CTM, phones.txt) is kept as segments, never as frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from speechkit.data.tables import shown
from speechkit.data.textgrid import read_textgrid
from speechkit.errors import InputError, nearest

Form = Literal["phn", "ctm", "textgrid", "table"]
SUFFIXES: dict[Form, str] = {"phn": ".phn", "textgrid": ".textgrid"}
"""Forms with a file for each utterance, and how its name ends, in capitals or not."""

BEYOND = 0.025
"""Seconds by which a segment may end after the audio: times are often rounded to frames."""

_EPSILON = 1e-6  # seconds by which decimal fractions of times may miss each other
_PARTS = 6  # last parts of a file's path that may stand in an utterance's id


class Timed(NamedTuple):
    """A phone from `start` to `end` seconds, as line `line` of its file says."""

    line: int
    start: float
    end: float
    phone: str


@dataclass(frozen=True)
class Segments:
    """The phones of one utterance, in time.

    Attributes:
        path: the file.
        starts: `(N,)` seconds.
        ends: `(N,)` seconds; not after the next start.
        phones: `(N,)` numbers of phones.
        lines: `(N,)` lines of the file.
    """

    path: Path
    starts: np.ndarray
    ends: np.ndarray
    phones: np.ndarray
    lines: np.ndarray

    def within(self, utterance: str, seconds: float) -> None:
        """Raises InputError when a segment lies beyond the end of the audio."""
        late = np.flatnonzero(self.ends > seconds + BEYOND)
        if len(late):
            line, end = self.lines[late[0]], self.ends[late[0]]
            raise InputError(
                f"{self.path}:{line}: utterance {utterance}: a phone ends at {end:.3f} s, the audio at "
                f"{seconds:.3f} s; is this segmentation of the same audio, and the rate of its times right?"
            )


@dataclass
class Segmentation:
    """The segments of all utterances of a data directory.

    Attributes:
        path: file or folder.
        reader: reads the file of an utterance, where each has its own.
        numbers: the phones met so far and their numbers, counted from 0.
        files: utterance -> its file.
        kept: utterance -> its segments, where one file holds all.
    """

    path: Path
    reader: Callable[[Path], Iterable[Timed]] | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    kept: dict[str, Segments] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The phones met so far, by number."""
        return list(self.numbers)

    def of(self, utterance: str) -> Segments:
        """The phones of one utterance.

        Raises:
            InputError: its file is not of the form that it should be.
        """
        if self.reader is None:
            return self.kept[utterance]
        path = self.files[utterance]
        return self.pack(path, utterance, self.reader(path))

    def pack(self, path: Path, utterance: str, timed: Iterable[Timed]) -> Segments:
        """Checks the phones of an utterance and numbers them.

        Raises:
            InputError: a phone that ends before it starts, starts before the one above it ends, or at a
                time that is none.
        """
        rows, before = [], 0.0
        for piece in timed:
            where = f"{path}:{piece.line}: utterance {utterance}"
            times = f"{piece.start:.4f} to {piece.end:.4f} s"
            if not (math.isfinite(piece.start) and math.isfinite(piece.end) and piece.start >= 0):
                raise InputError(f"{where}: '{shown(piece.phone)}' from {times}: no times of an utterance")
            if piece.end <= piece.start:
                raise InputError(f"{where}: '{shown(piece.phone)}' from {times}: ends before it begins")
            if piece.start < before - _EPSILON:
                raise InputError(
                    f"{where}: '{shown(piece.phone)}' from {times} overlaps or precedes the phone above it, "
                    f"which ends at {before:.4f} s; phones must follow each other"
                )
            before = piece.end
            number = self.numbers.setdefault(piece.phone, len(self.numbers))
            rows.append((piece.start, piece.end, number, piece.line))
        starts, ends, phones, lines = zip(*rows) if rows else ((), (), (), ())
        times = (np.array(starts, np.float64), np.array(ends, np.float64))
        return Segments(path, *times, np.array(phones, np.int32), np.array(lines, np.int32))


def open_segmentation(
    path: str | Path,
    utterances: Sequence[str],
    form: Form | None = None,
    *,
    rate: float = 100.0,
    samples: float = 16000.0,
    tier: str | None = None,
) -> Segmentation:
    """Opens the segmentation of a data directory's utterances.

    Args:
        path: a folder of .phn or TextGrid files, at any depth, a CTM, or a table `utterance phone phone ...`.
        utterances: ids. A file is an utterance's when the id is its name, or its name behind those of the
            folders it lies in (`FCJF0/SA1.PHN` is that of `fcjf0-sa1`).
        form: of the files; None goes by their names.
        rate: phones a second of a table.
        samples: samples a second in which .phn files count.
        tier: of TextGrids; None takes the one called phones, or the only one.

    Raises:
        InputError: nothing there, phones of unknown utterances, utterances without phones, or lines that are
            none; file and line are named.
    """
    path = Path(path)
    form = form or _form(path)
    if form in SUFFIXES:
        reader = (lambda file: read_phn(file, samples)) if form == "phn" else (lambda file: _grid(file, tier))
        segmentation = Segmentation(path, reader, files=_match(path, SUFFIXES[form], utterances))
        found: Iterable[str] = segmentation.files
    else:
        segmentation = Segmentation(path)
        _keep(segmentation, read_ctm(path) if form == "ctm" else read_table(path, rate), utterances)
        found = segmentation.kept
    missing = sorted(set(utterances) - set(found))
    if missing:
        raise InputError(f"{path}: no phones for {len(missing)} utterance(s), the first is {missing[0]}")
    return segmentation


def _keep(
    segmentation: Segmentation, rows: Iterable[tuple[str, int, list[Timed]]], utterances: Sequence[str]
) -> None:
    """Takes in the utterances of one file."""
    path, known = segmentation.path, set(utterances)
    for utterance, line, timed in rows:
        if utterance not in known:
            hint = nearest(utterance, utterances[:5000])
            raise InputError(f"{path}:{line}: no utterance '{shown(utterance)}' in the data{hint[:200]}")
        if utterance in segmentation.kept:
            raise InputError(f"{path}:{line}: utterance {utterance} was there already, further above")
        segmentation.kept[utterance] = segmentation.pack(path, utterance, timed)


def _form(path: Path) -> Form:
    """What a path holds, by the names of its files."""
    if path.is_file():
        forms: list[Form] = ["ctm" if path.suffix.lower() == ".ctm" else "table"]
    elif path.is_dir():
        endings = {file.suffix.lower() for file in path.rglob("*") if not file.name.startswith(".")}
        forms = [form for form, suffix in SUFFIXES.items() if suffix in endings]
    else:
        raise InputError(f"{path}: no such file or folder")
    if len(forms) != 1:
        has = "both .phn and .TextGrid files; say which" if forms else "neither .phn nor .TextGrid files"
        raise InputError(f"{path}: {has}")
    return forms[0]


def _match(folder: Path, suffix: str, utterances: Sequence[str]) -> dict[str, Path]:
    """The file of each utterance; files of other utterances are passed over."""
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder of {suffix} files")
    ids: dict[str, str] = {}
    for utterance in utterances:
        if ids.setdefault(_plain(utterance), utterance) != utterance:
            raise InputError(
                f"{folder}: utterances {ids[_plain(utterance)]} and {utterance} differ only in capitals or "
                "in - and _, so that their files cannot be told apart"
            )
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() != suffix or file.name.startswith("."):
            continue
        parts = file.absolute().with_suffix("").parts[-_PARTS:]
        names = (_plain("-".join(parts[place:])) for place in range(len(parts)))
        utterance = next((ids[name] for name in names if name in ids), None)
        if utterance is None:
            continue
        if utterance in found:
            raise InputError(f"{file}: {found[utterance]} is a file of utterance {utterance}, too")
        found[utterance] = file
    return found


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")


# ---- readers ----------------------------------------------------------------------------------------------


def read_phn(path: Path, samples: float = 16000.0) -> Iterator[Timed]:
    """The lines `first_sample end_sample phone` of one of TIMIT's .phn files, `samples` a second."""
    for number, words in _lines(path):
        times = [int(word) for word in words[:2] if word.isascii() and word.isdigit()]
        if len(words) != 3 or len(times) != 2:
            raise InputError(f"{path}:{number}: expected: first_sample end_sample phone")
        yield Timed(number, times[0] / samples, times[1] / samples, words[2])


def read_ctm(path: Path) -> Iterator[tuple[str, int, list[Timed]]]:
    """Utterances of a CTM, with the line at which each begins and its phones: `utterance channel start
    duration phone [confidence]`, in seconds; lines that begin with `;;` are comments."""
    rows: list[Timed] = []
    utterance = None
    for number, words in _lines(path):
        if words[0].startswith(";;"):
            continue
        times = [_seconds(word) for word in words[2:4]]
        if len(words) not in (5, 6) or None in times:
            raise InputError(
                f"{path}:{number}: expected: utterance channel start duration phone [confidence]"
            )
        if words[0] != utterance:
            if rows:
                yield utterance, rows[0].line, rows
            utterance, rows = words[0], []
        rows.append(Timed(number, times[0], times[0] + times[1], words[4]))
    if rows:
        yield utterance, rows[0].line, rows


def read_table(path: Path, rate: float = 100.0) -> Iterator[tuple[str, int, list[Timed]]]:
    """Utterances of a table `utterance phone phone ...`, `rate` phones a second; equal ones are joined."""
    for number, (utterance, *phones) in _lines(path):
        edges = [place for place in range(1, len(phones)) if phones[place] != phones[place - 1]]
        bounds = zip([0, *edges], [*edges, len(phones)])
        rows = [Timed(number, start / rate, end / rate, phones[start]) for start, end in bounds if phones]
        yield utterance, number, rows


def _grid(path: Path, tier: str | None) -> Iterator[Timed]:
    for line, start, end, phone in read_textgrid(path, tier):
        if phone:
            yield Timed(line, start, end, phone)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines of UTF-8, one at a time and as words; blank ones are passed over."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                words = line.decode().removeprefix("\ufeff").split()
                if words:
                    yield number, words
    except UnicodeDecodeError:
        raise InputError(f"{path}:{number}: not UTF-8; convert it (iconv -t UTF-8)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _seconds(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
