"""The frame labels of a training set, for models that compare themselves with who only knows frequencies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from speechkit.data.array_records import read_record
from speechkit.data.labels import ARRAYS, label_array_table, label_table
from speechkit.data.manifest import Manifest
from speechkit.errors import InputError

CLIPS = 500
"""Labels that are not in memory are read of so many clips, spread over the set."""


def known_labels(fields: Iterable[str], manifest: Manifest) -> dict[str, np.ndarray]:
    """Labels one after the other, by batch field.

    Args:
        fields: of batches; those without labels do not matter.
        manifest: the training set.
    """
    found = {}
    for name in fields:
        if label_table(name) in manifest.labels:
            found[name] = manifest.labels[label_table(name)].flat
        elif name in ARRAYS:
            entries = manifest.tables[label_array_table(name)]
            places = np.unique(np.linspace(0, len(manifest) - 1, CLIPS).astype(int)).tolist()
            rows = [_read(entries[place]) for place in places if entries[place]]
            found[name] = np.concatenate([np.zeros(0, np.int64), *rows])
    return found


def _read(entry: str) -> np.ndarray:
    """Nothing where they cannot be read: the training will say so."""
    try:
        return read_record(entry).astype(np.int64).flatten()
    except InputError:
        return np.zeros(0, np.int64)
