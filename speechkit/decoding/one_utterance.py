"""Utterances of a data directory one by one, with all that a model learns from, to be looked at."""

from __future__ import annotations

from collections.abc import Callable
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


def one_by_one(model: nn.Module, run: Any, folder: str | Path) -> Callable[[str | None, int], Batch]:
    """A function from an utterance's id and a key to a batch of it alone, with what the model requires.

    Args:
        model: of frames and labels, not of text.
        run: the `RunConfig` that it was trained with.
        folder: the data directory, whose tables are read once.

    Returns:
        The function. Its first argument is None for the first utterance, its second the seed of the draws of
        masks; it raises InputError where there is no such utterance, BadSample where it cannot be read.

    Raises:
        InputError: a table is missing.
    """
    extractor = load_kind(FEATURES, run.features.name).build(run.features)
    manifest = read_manifest([folder], tables_of(model.requires), (), extractor.rate, run.features)
    places = {manifest.ids[i]: i for i in range(len(manifest))}
    reader = BatchReader(Context(manifest, extractor), model.requires)

    def read(utterance: str | None = None, key: int = 0) -> Batch:
        if utterance is not None and utterance not in places:
            raise InputError(f"{folder}: no utterance '{utterance}'{nearest(utterance, [*places][:5000])}")
        place = np.array([places.get(utterance, 0)])
        loaded = reader(MicroBatch(0, place, np.ones(1), np.array([key]), 0.0, 0.0))
        if loaded.batch is None:
            raise BadSample(*loaded.bad[0])
        return loaded.batch

    return read
