"""Frame labels such as k-means clusters: `km.txt` or `km_<name>.txt` of a data directory.

A row `utt 3 3 17 ...` has one whole number for each label frame. The text of 960 hours is a gigabyte, so it
is read once, line by line, into one array of 16- or 32-bit numbers. Labels of video, thousands a clip, are
arrays in records instead: `km_video.scp`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechkit.data.tables import shown
from speechkit.errors import InputError, Problem, ProblemsError

ARRAYS = ("kmeans_video",)
"""Fields whose labels are records of arrays."""

_FIELD = re.compile(r"kmeans(?:_([A-Za-z0-9_-]+))?")
_NUMBERS = b"0123456789 "
_LARGEST = 2**31 - 1
_SHOWN = 10


@dataclass(frozen=True)
class LabelSet:
    """What a model expects of one kind of labels.

    Attributes:
        field: the batch field, `kmeans` or `kmeans_<name>`.
        classes: K; labels lie in [0, K).
        rate: labels a second.
        features: hash of the configuration of the features that were clustered, or None for any.
        options: what to set for another number of classes, and for another rate.
    """

    field: str
    classes: int
    rate: float
    features: str | None = None
    options: tuple[str, str] = ("model.classes", "model.label_rates")


def label_table(field: str) -> str | None:
    """`km.txt` for the field `kmeans`, `km_<name>.txt` for `kmeans_<name>`, None for any other field."""
    match = _FIELD.fullmatch(field)
    return match and (f"km_{match[1]}.txt" if match[1] else "km.txt")


def label_array_table(field: str) -> str:
    """`km_<name>.scp` for the field `kmeans_<name>`."""
    return label_table(field).removesuffix(".txt") + ".scp"


def is_label_table(name: str) -> bool:
    """Whether a file of a data directory holds frame labels that a model learns."""
    return name == "km.txt" or (name.startswith("km_") and name.endswith(".txt"))


def is_label_array(name: str) -> bool:
    """Whether a file of a data directory says where labels lie that are records of arrays."""
    return name.startswith("km_") and name.endswith(".scp")


def read_labels(path: str | Path, utterances: Collection[str]) -> dict[str, np.ndarray]:
    """Reads a table of labels.

    Args:
        path: the table.
        utterances: all ids of the data directory; some may have no row.

    Returns:
        Utterance -> `(L,)` int16 labels (int32 where one is above 32767).

    Raises:
        InputError: there is no such file.
        ProblemsError: rows that are not `utt 3 3 17 ...`, of unknown utterances, or twice.
    """
    path, known = Path(path), set(utterances)
    labels: dict[str, np.ndarray] = {}
    problems: list[Problem] = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    utterance, values = _parse(line, known)
                    if utterance in labels:
                        raise ValueError("duplicate id", utterance)
                    labels[utterance] = values
                except ValueError as error:
                    message, value = error.args
                    problems.append(Problem(str(path), number, message, shown(value)))
                    if len(problems) == _SHOWN:
                        break
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, and it is needed; speechkit kmeans makes it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if problems:
        raise ProblemsError(problems)
    return labels


def _parse(line: bytes, known: set[str]) -> tuple[str, np.ndarray]:
    """One row; raises ValueError(what, value)."""
    if not line.endswith(b"\n"):
        raise ValueError("no line feed at the end of the file: is it complete?", line[:50].decode("latin-1"))
    name, _, rest = line[:-1].partition(b" ")
    utterance = name.decode(errors="replace")
    if utterance not in known:
        raise ValueError("utterance is not in utt2spk", utterance)
    if rest.translate(None, _NUMBERS):
        odd = next(word for word in rest.split(b" ") if word and not word.isdigit())
        raise ValueError("expected whole numbers separated by spaces", odd.decode(errors="replace"))
    values = np.fromstring(rest, np.int64, sep=" ") if rest.strip() else np.zeros(0, np.int64)
    highest = int(values.max(initial=0))
    if highest > _LARGEST:
        raise ValueError("label too large", str(highest))
    return utterance, values.astype(np.int16 if highest < 2**15 else np.int32)
