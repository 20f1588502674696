"""Labels of data directories: km.txt or km_<name>.txt, and beside it the rate of its labels in a .json.

Those of video, thousands a clip, are records of arrays: km_video.scp and km_video.npy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speechkit.clustering.codebook import Codebook
from speechkit.clustering.frames import Source, open_source, pieces, refuse
from speechkit.clustering.kmeans import assign
from speechkit.data.array_records import RecordWriter
from speechkit.data.labels import ARRAYS, label_array_table, label_table
from speechkit.data.parallel import run_parallel
from speechkit.data.tables import parse_table, render_table
from speechkit.errors import BadSample, InputError, ProblemsError, UsageError
from speechkit.files import atomic_write, read_json, write_json, write_text
from speechkit.stamp import Stamp


def label_file(name: str | None, of_video: bool = False) -> str:
    """The table of a label set: km.txt, km_<name>.txt, or km_video.scp.

    Raises:
        UsageError: a name that is no plain word, or not that of what is labelled.
    """
    if of_video != (f"kmeans_{name}" in ARRAYS):
        raise UsageError(f"--name {name}: patches of video, and nothing else, are labelled as --name video")
    if of_video:
        return label_array_table(f"kmeans_{name}")
    table = label_table("kmeans" if name is None else f"kmeans_{name}")
    if table is None:
        raise UsageError(f"--name {name}: expected letters, digits, - and _")
    return table


@dataclass(frozen=True)
class _Labeller:
    """Labels pieces of work in worker processes: text and squared distance, or what was wrong."""

    source: Source
    book: Codebook
    device: str

    def __call__(self, piece: Sequence[str]) -> list[tuple[str, np.ndarray, float] | BadSample]:
        centres, found = torch.from_numpy(self.book.centres).to(self.device), []
        for utterance in piece:
            try:
                frames = self._frames(utterance)
            except BadSample as error:
                found.append(error)
                continue
            labels, distances = assign(torch.from_numpy(frames).to(self.device), centres)
            labels = labels.cpu().numpy().astype(np.int32)
            found.append((utterance, labels, float(distances.double().sum())))
        return found

    def _frames(self, utterance: str) -> np.ndarray:
        frames = self.source.read(utterance)
        if frames.shape[1] != self.book.dim:
            raise BadSample(
                utterance,
                "wrong feature dimension",
                f"{frames.shape[1]}, the k-means model takes {self.book.dim}",
            )
        return np.ascontiguousarray(frames[:, self.book.subspace.columns(self.book.dim)])


def label_directory(
    book: Codebook,
    folder: str | Path,
    name: str | None = None,
    *,
    jobs: int = 1,
    force: bool = False,
    device: str = "cpu",
) -> dict | None:
    """Writes the labels of every utterance into its data directory.

    Args:
        book: the k-means model.
        folder: the data directory.
        name: of the label set; None is the unnamed one.
        jobs: processes; one alone feeds a GPU.
        force: work even when nothing changed.
        device: where to compute.

    Returns:
        What was written beside the labels, or None when everything was up to date.

    Raises:
        InputError: an utterance cannot be labelled; nothing was written then.
    """
    path = Path(folder) / label_file(name, book.kind.of_video)
    record = path.with_suffix(".json")
    source = open_source(folder, book.kind)
    stamp = Stamp(path, "kmeans", book.hash, [*source.inputs, record], force)
    if stamp.fresh():
        return None
    jobs = book.kind.processes(jobs) if device == "cpu" else 1
    parts = run_parallel(_Labeller(source, book, device), pieces(source.utterances), jobs)
    if book.kind.of_video:
        rows, summary = _write_arrays(parts, book, path)
    else:
        rows = {}

        def keep(utterance: str, labels: np.ndarray) -> None:
            rows[utterance] = " ".join(map(str, labels.tolist()))

        summary = _take_in(parts, book, str(folder), keep)
        record.unlink(missing_ok=True)  # never a rate beside labels that it was not written for
    write_text(path, render_table(rows).decode())
    write_json(record, summary)
    stamp.write()
    return summary


def _write_arrays(parts: Iterable, book: Codebook, path: Path) -> tuple[dict[str, str], dict]:
    """Writes the labels as records; returns the rows of the table, and the summary."""
    rows, archive = {}, path.with_suffix(".npy")
    kind = np.uint16 if len(book.centres) <= 2**16 else np.int32
    with atomic_write(archive, "wb") as file:
        writer = RecordWriter(file, archive)

        def keep(utterance: str, labels: np.ndarray) -> None:
            rows[utterance] = writer.write(labels.astype(kind))

        summary = _take_in(parts, book, str(path.parent), keep)
        for old in (path, path.with_suffix(".json")):  # never beside an archive that they are not of
            old.unlink(missing_ok=True)
    return rows, summary


def _take_in(
    parts: Iterable, book: Codebook, where: str, keep: Callable[[str, np.ndarray], None]
) -> dict[str, float | str]:
    """Hands labels to `keep`; returns what is written beside them, or refuses what cannot be labelled."""
    usage, inertia, problems, utterances = np.zeros(len(book.centres), np.int64), 0.0, [], 0
    for found in (found for part in parts for found in part):
        if isinstance(found, BadSample):
            problems.append(found)
            continue
        utterance, labels, distance = found
        keep(utterance, labels)
        usage += np.bincount(labels, minlength=len(usage))
        inertia += distance
        utterances += 1
    refuse(where, problems)
    frames = int(usage.sum())
    shares = usage[usage > 0] / frames
    return {
        "label_rate": book.kind.rate,
        "offset": book.kind.offset,
        "clusters": len(usage),
        "kmeans": book.hash,
        "features": book.features,
        "utterances": utterances,
        "frames": frames,
        "used": int((usage > 0).sum()),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
        "inertia": inertia / frames,
    }


@dataclass(frozen=True)
class Track:
    """Labels or phones of a data set, one after the other along each utterance.

    Attributes:
        path: the file.
        rows: utterance -> its labels, as words.
        rate: labels a second.
        offset: seconds from the beginning of the audio to the middle of the first label.
    """

    path: Path
    rows: dict[str, list[str]]
    rate: float
    offset: float


def read_track(path: str | Path, rate: float | None = None) -> Track:
    """Reads labels or phones: `utterance word word ...`.

    Args:
        path: km.txt, km_<name>.txt or phones.txt.
        rate: labels a second; None takes what the .json beside the file says. A label then is centred in
            its piece of time, unless the .json knows better.

    Raises:
        InputError: no such file, no utterance, or nothing says the rate.
        ProblemsError: lines that are no labels.
    """
    path = Path(path)
    try:
        table = parse_table(path.read_bytes(), str(path), "phones" if "phone" in path.name else "km.txt")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    if table.problems:
        raise ProblemsError(table.problems)
    offset = None
    if rate is None:
        rate, offset = _recorded(path)
    rows = {utterance: value.split() for utterance, value in table.rows.items()}
    return Track(path, rows, rate, 0.5 / rate if offset is None else offset)


def _recorded(path: Path) -> tuple[float, float | None]:
    place = path.with_suffix(".json")
    if not place.is_file():
        raise InputError(f"{place}: no such file, which would say how many labels a second {path.name} has")
    record = read_json(place)
    rate = record.get("label_rate") if isinstance(record, dict) else None
    if not isinstance(rate, int | float) or not rate > 0:
        raise InputError(f"{place}: label_rate is missing or no positive number")
    offset = record.get("offset")
    return float(rate), float(offset) if isinstance(offset, int | float) else None
