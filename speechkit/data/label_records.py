"""Records beside frame labels: how many of km.txt are a second, and which clusters they number (km.json).

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
"""Entries that are true of any part of a table."""


def record_files(folder: str | Path) -> list[Path]:
    """The records in a data directory, sorted: what a command that copies labels depends on."""
    found = Path(folder).glob("km*.json")
    return sorted(path for path in found if is_label_table(path.with_suffix(".txt").name))


def read_records(folder: str | Path, tables: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Table -> the entries `SHARED` of its record, for tables that have one.

    Raises:
        InputError: a record that is no JSON object.
    """
    records = {}
    tables = set(tables)
    for path in record_files(folder):
        names = [path.with_suffix(suffix).name for suffix in (".txt", ".scp")]
        for name in tables.intersection(names):
            record = read_json(path)
            if not isinstance(record, dict):
                raise InputError(f"{path}: not a record of labels; make the labels again")
            records[name] = {key: record[key] for key in SHARED if key in record}
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
        InputError: records that differ: the same number would mean different sounds.
    """
    joint, messages = {}, []
    for name in filter(lambda name: is_label_table(name) or is_label_array(name), tables):
        owners = [folder for folder in folders if (Path(folder) / name).exists()]
        found = {folder: read_records(folder, [name]).get(name) for folder in owners}
        records = {folder: record for folder, record in found.items() if record is not None}
        if not records:
            continue
        first, record = next(iter(records.items()))
        for folder, other in records.items():
            keys = [key for key in SHARED if record.get(key) != other.get(key)]
            if keys:
                raise InputError(
                    f"{folder}: {name} has another {keys[0]} ({other.get(keys[0])}) than that of {first} "
                    f"({record.get(keys[0])}): label both with one model (speechkit kmeans apply)"
                )
        without = [str(folder) for folder in owners if folder not in records]
        if without:
            messages.append(f"{Path(name).with_suffix('.json')} left out: {', '.join(without)} has none")
        else:
            joint[name] = record
    return joint, messages


def clear_records(folder: str | Path) -> None:
    """Removes all records, before the labels beside them change."""
    for path in record_files(folder):
        path.unlink()


def write_records(records: dict[str, dict[str, Any]], folder: str | Path) -> None:
    """Writes each record beside its table."""
    for name, record in records.items():
        write_json((Path(folder) / name).with_suffix(".json"), record)
