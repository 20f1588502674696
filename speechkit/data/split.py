"""Cutting a data set into parts for parallel jobs."""

from __future__ import annotations

from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError
from speechkit.files import atomic_folder


def split(data: DataDir, parts: int, per_utterance: bool = False) -> list[DataDir]:
    """Parts of nearly equal numbers of utterances, consecutive in sorted order.

    A speaker stays in one part, unless there are fewer speakers than parts or `per_utterance` is set.

    Args:
        data: the data set.
        parts: how many; each gets at least one utterance.
        per_utterance: ignore the speakers.

    Raises:
        InputError: fewer utterances than parts, or `parts` is not positive.
    """
    if not 0 < parts <= len(data.utt2spk):
        raise InputError(f"{data.path}: cannot split {len(data.utt2spk)} utterances into {parts} parts")
    groups = list(data.spk2utt.values())
    if per_utterance or len(groups) < parts:
        groups = [[utterance] for utterance in data.utterances]
    ends = _cuts([len(group) for group in groups], parts)
    return [
        data.select(utterance for group in groups[start:end] for utterance in group)
        for start, end in zip([0, *ends], ends)
    ]


def _cuts(sizes: list[int], parts: int) -> list[int]:
    """Ends of `parts` non-empty runs of groups, each end as near as it can be to its share of the total."""
    total, used, index, ends = sum(sizes), 0, 0, []
    for part in range(1, parts):
        target = total * part / parts
        last = len(sizes) - (parts - part)  # leaves a group for every later part
        used += sizes[index]
        index += 1
        while index < last and abs(used + sizes[index] - target) <= abs(used - target):
            used += sizes[index]
            index += 1
        ends.append(index)
    return [*ends, len(sizes)]


def split_folder(path: str | Path, parts: int, per_utterance: bool = False) -> Path:
    """Where the parts of a directory go: `<dir>/split<n>`, or `<dir>/split<n>utt` per utterance."""
    return Path(path) / f"split{parts}{'utt' if per_utterance else ''}"


def write_split(data: DataDir, parts: int, per_utterance: bool = False) -> Path:
    """Writes Kaldi's layout `<dir>/split<n>/1..n`, all parts or none.

    Returns:
        The folder that holds the parts.

    Raises:
        InputError: see `split`.
    """
    folder = split_folder(data.path, parts, per_utterance)
    pieces = split(data, parts, per_utterance)
    with atomic_folder(folder) as temporary:
        for number, piece in enumerate(pieces, 1):
            write_data_dir(piece, temporary / str(number))
    return folder
