"""One utterance of a data directory with all that a model learns from, to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from speechkit.config import load_kind
from speechkit.data.batch import Batch
from speechkit.data.dataset import BatchReader, Context, tables_of
from speechkit.data.manifest import read_manifest
from speechkit.data.plan import MicroBatch
from speechkit.errors import BadSample, InputError, nearest
from speechkit.frontends import FEATURES


def read_one(
    model: nn.Module, run: Any, folder: str | Path, utterance: str | None = None, key: int = 0
) -> Batch:
    """A batch of one utterance, with the fields that the model requires.

    Args:
        model: of frames and labels, not of text.
        run: the `RunConfig` that it was trained with.
        folder: the data directory.
        utterance: its id; None for the first one.
        key: seed of the draws of masks.

    Raises:
        InputError: no such utterance, or a table is missing.
        BadSample: it cannot be read.
    """
    extractor = load_kind(FEATURES, run.features.name).build(run.features)
    manifest = read_manifest([folder], tables_of(model.requires), (), extractor.rate, run.features)
    names = [manifest.ids[i] for i in range(len(manifest))]
    name = utterance or names[0]
    if name not in names:
        raise InputError(f"{folder}: no utterance '{name}'{nearest(name, names[:5000])}")
    reader = BatchReader(Context(manifest, extractor), model.requires)
    place, speed, seed = np.array([names.index(name)]), np.ones(1), np.array([key])
    loaded = reader(MicroBatch(0, place, speed, seed, 0.0, 0.0))
    if loaded.batch is None:
        raise BadSample(*loaded.bad[0])
    return loaded.batch
