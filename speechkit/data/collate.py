"""Samples to a Batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from speechkit.data.batch import Batch, pad


def collate(
    ids: Sequence[str],
    keys: Sequence[int],
    rows: Sequence[Mapping[str, Tensor]],
    languages: Sequence[str] | None = None,
    padding: Mapping[str, float] | None = None,
) -> Batch:
    """Stacks the fields of utterances.

    Args:
        ids: utterance ids, at least one.
        keys: per-utterance hashes.
        rows: the fields of each utterance, `(T_i, ...)` tensors under the same names.
        languages: language codes, or None.
        padding: value that fills a field's padding; 0 where it is not named.
    """
    padding = padding or {}
    fields = {name: pad([row[name] for row in rows], padding.get(name, 0)) for name in rows[0]}
    return Batch(
        list(ids),
        torch.tensor(list(keys), dtype=torch.int64),
        list(languages) if languages is not None else None,
        fields,
    )
