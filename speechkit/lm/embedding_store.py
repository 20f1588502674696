"""Embeddings of sentences' tokens on disk, found by a hash of the tokens: one file of fp16 that is mapped.

<folder>/values.npy   (N, E) float16, the rows of all sentences, one sentence after the other
<folder>/index.npy    (S, 3) uint64: hash, first row, number of rows; sorted by hash
<folder>/store.json   what made them, mean and deviation of every dimension
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.errors import InputError
from speechkit.files import atomic_folder, read_json, write_json
from speechkit.lm.bert_embeddings import Embedder

SENTENCES = 512
"""Sentences that are embedded together before they are written."""


def hash_ids(ids: Sequence[int]) -> int:
    """64 bits of BERT's own ids of a sentence."""
    return int.from_bytes(hashlib.blake2b(np.asarray(ids, "<i8").tobytes(), digest_size=8).digest(), "little")


def write_store(
    folder: str | Path, sentences: Iterator[Sequence[int]], embedder: Embedder, about: dict[str, Any]
) -> int:
    """Embeds sentences, each different one once, and writes a store, all or nothing.

    Args:
        folder: to be made.
        sentences: BERT's own ids of each, without [CLS] and [SEP].
        embedder: what makes the embeddings.
        about: for the record.

    Returns:
        How many different sentences there were.

    Raises:
        InputError: no sentence, or one that BERT cannot read.
    """
    unique = {hash_ids(ids): list(ids) for ids in sentences}
    keys = sorted(unique)
    if not keys:
        raise InputError(f"{folder}: no sentence to embed")
    around = len(range(*embedder.config.around(0).indices(2)))
    sizes = np.array([len(unique[key]) + around for key in keys], np.int64)
    starts = np.cumsum(sizes) - sizes
    with atomic_folder(folder) as temporary:
        shape = (int(sizes.sum()), embedder.dim)
        values = np.lib.format.open_memmap(temporary / "values.npy", "w+", np.float16, shape)
        total, squares = np.zeros(embedder.dim), np.zeros(embedder.dim)
        for first in range(0, len(keys), SENTENCES):
            part = keys[first : first + SENTENCES]
            rows = np.concatenate([row.numpy() for row in embedder.of_ids([unique[key] for key in part])])
            begin = int(starts[first])
            values[begin : begin + len(rows)] = rows
            total, squares = total + rows.sum(0), squares + np.square(rows, dtype=np.float64).sum(0)
        values.flush()
        index = np.stack([np.array(keys, np.uint64), starts.astype(np.uint64), sizes.astype(np.uint64)], 1)
        np.save(temporary / "index.npy", index)
        mean = total / len(values)
        deviation = np.sqrt(np.maximum(squares / len(values) - mean**2, 0))
        record = {"identity": embedder.identity, "dim": embedder.dim, "specials": embedder.config.specials}
        record |= {"layers": embedder.config.layers, "sentences": len(keys), "tokens": len(values)}
        record |= {"mean": mean.tolist(), "std": deviation.tolist()}
        write_json(temporary / "store.json", {**record, **about})
    return len(keys)


class EmbeddingStore:
    """Reads what `write_store` wrote.

    Args:
        folder: of the store.

    Attributes:
        record: content of store.json.
        dim: E.

    Raises:
        InputError: no store there, or one that is cut off.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = read_json(self.folder / "store.json")
        self.dim = int(self.record["dim"])
        try:
            self.index = np.load(self.folder / "index.npy", allow_pickle=False)
            self.values = np.load(self.folder / "values.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder}: {error}; make it again with speechkit bert-embed") from None
        if self.values.shape != (int(self.index[:, 2].sum()), self.dim):
            raise InputError(f"{self.folder}: values and index are not of one store; make it again")

    def __contains__(self, ids: Sequence[int]) -> bool:
        return self._place(ids) is not None

    def _place(self, ids: Sequence[int]) -> int | None:
        key = np.uint64(hash_ids(ids))
        place = int(np.searchsorted(self.index[:, 0], key))
        return place if place < len(self.index) and self.index[place, 0] == key else None

    def get(self, ids: Sequence[int]) -> np.ndarray:
        """`(U, E)` fp16 of a sentence; KeyError for one that is not there."""
        place = self._place(ids)
        if place is None:
            raise KeyError(tuple(ids))
        _, start, count = (int(value) for value in self.index[place])
        return self.values[start : start + count]
