"""features.json and the record in cmvn.json: which configuration features were made with.

A model computes features from audio too, at other speeds and for files that nobody dumped, so dumped ones
must be exactly those that its own frontend makes; a difference would show only as a worse error rate.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from speechkit.config import differences, to_dict
from speechkit.errors import InputError
from speechkit.files import read_json


def check_features(folder: Path, config: Any) -> None:
    """Compares the feats.scp of a data directory with a model's frontend.

    Features that other programs made have no features.json; only their dimension is checked, when read.

    Args:
        folder: the data directory.
        config: of the frontend.

    Raises:
        InputError: they were made with another configuration, or normalised by speaker.
    """
    path = folder / "features.json"
    if path.is_file():
        _compare(path, read_json(path), config, f"delete {folder / 'feats.scp'}")


def same_features(folder: Path, config: Any, speaker_cmvn: bool = False) -> bool:
    """True when features.json of a data directory says that feats.scp was made with this configuration."""
    path = folder / "features.json"
    if not path.is_file():
        return False
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        return False
    return bool(record.get("speaker_cmvn")) == speaker_cmvn and not _differences(record["config"], config)


def read_statistics(path: Path, config: Any) -> dict:
    """Reads cmvn.json and compares it with a model's frontend, where it says what it was computed from.

    Raises:
        InputError: it is none, of other features, or of features normalised by speaker.
    """
    statistics = read_json(path)
    lists = isinstance(statistics, dict) and all(isinstance(statistics.get(k), list) for k in ("mean", "std"))
    if not lists:
        raise InputError(f"{path}: no CMVN statistics; `speechkit features --cmvn true` makes them")
    if "config" in statistics:
        _compare(path, statistics, config, "leave --cmvn out")
    return statistics


def _compare(path: Path, record: Any, config: Any, otherwise: str) -> None:
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise InputError(f"{path}: no record of a configuration; run speechkit features again")
    if record.get("speaker_cmvn"):
        raise InputError(
            f"{path}: of features normalised by speaker, which a model cannot make from audio; "
            f"run speechkit features without --speaker-cmvn, or {otherwise}"
        )
    found = _differences(record["config"], config)
    if found:
        raise InputError(
            f"{path}: of other features than the model's ({'; '.join(found)}); "
            f"run speechkit features with the model's configuration, or {otherwise}"
        )


def _differences(record: dict, config: Any) -> list[str]:
    """Lines for what differs, with the defaults for options that came after the record was written.

    Where a checkpoint lies and is computed does not matter, once the hash of its weights is known.
    """
    wanted = to_dict(config)
    defaults = {f.name: f.default for f in fields(config) if f.default is not MISSING}
    known = {name: value for name, value in defaults.items() if name in wanted}
    place = ("checkpoint", "device") if wanted.get("weights") else ()
    old, new = (
        {k: v for k, v in values.items() if k not in place} for values in ({**known, **record}, wanted)
    )
    return differences(old, new)
