"""Records beside tables: which clusters frame labels number and how many are a second (km.json), and how
features and frames of video were made (features.json, video.json).

Parts and joins of data sets keep what holds for every utterance of a table; its counts are not theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speechkit.data.labels import is_label_array, is_label_table
from speechkit.errors import InputError
from speechkit.files import read_json, write_json

SHARED = ("label_rate", "offset", "clusters", "kmeans", "features")
"""Entries of a record of labels that are true of any part of a table."""
OF_FEATURES = {"feats.scp": "features.json", "video_frames.scp": "video.json"}
COUNTS = ("utterances", "frames", "speeds")
"""Entries of a record of features that are true of the whole directory only."""


def record_files(folder: str | Path) -> list[Path]:
    """The records in a data directory, sorted: what a command that copies tables depends on."""
    labels = [path for path in Path(folder).glob("km*.json") if is_label_table(path.with_suffix(".txt").name)]
    features = [path for name in OF_FEATURES.values() if (path := Path(folder) / name).exists()]
    return sorted([*labels, *features])


def _tables_of(record: Path) -> list[str]:
    """The tables that a record may stand beside."""
    features = [table for table, name in OF_FEATURES.items() if name == record.name]
    return features or [record.with_suffix(suffix).name for suffix in (".txt", ".scp")]


def read_records(folder: str | Path, tables: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Table -> what of its record is true of any part of it, for tables that have one.

    Raises:
        InputError: a record that is no JSON object.
    """
    records = {}
    tables = set(tables)
    for path in record_files(folder):
        for name in tables.intersection(_tables_of(path)):
            record = read_json(path)
            if not isinstance(record, dict):
                raise InputError(f"{path}: not a record of {name}; make that again")
            keep = [key for key in record if key not in COUNTS] if name in OF_FEATURES else SHARED
            records[name] = {key: record[key] for key in keep if key in record}
    return records


def joint_records(
    folders: Sequence[str | Path], tables: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The records of joined tables: those that all directories with the table agree on.

    Args:
        folders: the data directories.
        tables: names of the joint tables.

    Returns:
        Table -> record, and a message for each record left out because a directory has none.

    Raises:
        InputError: records that differ: the same number would mean different things.
    """
    joint, messages = {}, []
    for name in filter(_has_record, tables):
        owners = [folder for folder in folders if (Path(folder) / name).exists()]
        found = {folder: read_records(folder, [name]).get(name) for folder in owners}
        records = {folder: record for folder, record in found.items() if record is not None}
        if not records:
            continue
        first, record = next(iter(records.items()))
        for folder, other in records.items():
            keys = [key for key in {**record, **other} if record.get(key) != other.get(key)]
            if keys:
                mend = "make both with one configuration"
                if name not in OF_FEATURES:
                    mend = "label both with one model (speechkit kmeans apply)"
                raise InputError(
                    f"{folder}: {name} has another {keys[0]} ({other.get(keys[0])}) than that of {first} "
                    f"({record.get(keys[0])}): {mend}"
                )
        without = [str(folder) for folder in owners if folder not in records]
        if without:
            messages.append(f"{_record_of(name)} left out: {', '.join(without)} has none")
        else:
            joint[name] = record
    return joint, messages


def _has_record(table: str) -> bool:
    return is_label_table(table) or is_label_array(table) or table in OF_FEATURES


def _record_of(table: str) -> str:
    return OF_FEATURES.get(table) or str(Path(table).with_suffix(".json"))


def clear_records(folder: str | Path) -> None:
    """Removes all records, before the tables beside them change."""
    for path in record_files(folder):
        path.unlink()


def write_records(records: dict[str, dict[str, Any]], folder: str | Path) -> None:
    """Writes each record beside its table."""
    for name, record in records.items():
        write_json(Path(folder) / _record_of(name), record)
