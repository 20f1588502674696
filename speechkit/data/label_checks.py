"""Frame labels against the audio and the model, before the first update.

Labels at 100 Hz taken for 50 Hz still train a model, only a worse one: their duration gives them away.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from speechkit.data.labels import ODD_SECONDS, WRONG_SECONDS, LabelSet, label_table
from speechkit.data.manifest import Manifest
from speechkit.errors import BadSample, InputError


def check_labels(manifest: Manifest, sets: Iterable[LabelSet]) -> tuple[dict[int, BadSample], list[dict]]:
    """Compares each set of labels with what the model expects of it.

    Args:
        manifest: with the labels.
        sets: what the model expects.

    Returns:
        The utterances without labels, by position; and a row for each whose labels last at least 0.1 s
        more or less than its audio.

    Raises:
        InputError: a label outside [0, K), or labels of more than 0.5 s more or less than the audio.
    """
    missing: dict[int, BadSample] = {}
    odd: list[dict] = []
    for labels in sets:
        table = label_table(labels.field)
        counts = manifest.labels[table].lengths
        for i in np.flatnonzero(counts == 0).tolist():
            missing.setdefault(i, BadSample(manifest.ids[i], f"no labels in {table}"))
        _check_range(manifest, labels)
        excess = np.where(counts > 0, counts / labels.rate - manifest.seconds, 0.0)
        _check_rate(manifest, labels, excess)
        for i in np.flatnonzero(np.abs(excess) > ODD_SECONDS).tolist():
            row = {"utterance": manifest.ids[i], "table": table, "labels": int(counts[i])}
            odd.append({**row, "seconds": float(manifest.seconds[i]), "excess": round(float(excess[i]), 4)})
    return missing, odd


def _check_range(manifest: Manifest, labels: LabelSet) -> None:
    table = label_table(labels.field)
    ragged = manifest.labels[table]
    if ragged.flat.max(initial=0) < labels.classes:
        return
    place = int(np.argmax(ragged.flat >= labels.classes))
    i = int(np.searchsorted(ragged.offsets, place, side="right")) - 1
    raise InputError(
        f"{table}: utterance {manifest.ids[i]} has the label {int(ragged.flat[place])}, but the model has "
        f"{labels.classes} classes for {labels.field}: give it the number of clusters (model.classes)"
    )


def _check_rate(manifest: Manifest, labels: LabelSet, excess: np.ndarray) -> None:
    wrong = np.flatnonzero(np.abs(excess) > WRONG_SECONDS)
    if not len(wrong):
        return
    table, i = label_table(labels.field), int(wrong[0])
    ragged, seconds = manifest.labels[table], manifest.seconds
    there = ragged.lengths > 0
    found = ragged.lengths[there].sum() / seconds[there].sum()
    raise InputError(
        f"{table}: the labels of {len(wrong)} of {len(manifest)} utterances are more than {WRONG_SECONDS} s "
        f"longer or shorter than the audio ({manifest.ids[i]}: {ragged.lengths[i]} labels at {labels.rate:g} "
        f"Hz for {seconds[i]:.2f} s); together they have {found:.1f} Hz: mend model.label_rates or the file"
    )
