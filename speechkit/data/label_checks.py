"""Frame labels against the audio and the model, before the first update.

Labels at 100 Hz taken for 50 Hz still train a model, only a worse one: their duration gives them away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from speechkit.data.labels import LabelSet, label_table
from speechkit.data.manifest import Manifest
from speechkit.errors import BadSample, InputError
from speechkit.files import read_json

ODD_SECONDS, WRONG_SECONDS = 0.1, 0.5
"""How much longer or shorter than the audio labels are: above the first listed, above the second refused."""

WRONG_RATE = 1.5
"""Factor between the rates of all labels and of the model, above which they are refused."""


def check_labels(manifest: Manifest, sets: Iterable[LabelSet]) -> tuple[dict[int, BadSample], list[dict]]:
    """Compares each set of labels with what the model expects of it.

    Args:
        manifest: with the labels.
        sets: what the model expects.

    Returns:
        The utterances without labels, by position; and a row for each whose labels last at least 0.1 s
        more or less than its audio.

    Raises:
        InputError: a label outside [0, K), labels of more than 0.5 s more or less than the audio, or
            all labels together of another rate.
    """
    missing: dict[int, BadSample] = {}
    odd: list[dict] = []
    for labels in sets:
        table = label_table(labels.field)
        if table not in manifest.labels:
            continue  # of arrays, which are not all in memory
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


def check_records(folders: Sequence[str | Path], sets: Iterable[LabelSet]) -> None:
    """Compares a model with what `speechkit kmeans` wrote beside the labels, where it did.

    Args:
        folders: the data directories.
        sets: what the model expects.

    Raises:
        InputError: another rate or number of clusters, or clusters of other features, by their hash.
    """
    for labels in sets:
        for folder in folders:
            path = (Path(folder) / label_table(labels.field)).with_suffix(".json")
            record = read_json(path) if path.is_file() else {}
            if not isinstance(record, dict):
                raise InputError(f"{path}: not a record of labels; make the labels again")
            if record.get("label_rate", labels.rate) != labels.rate:
                raise InputError(
                    f"{path}: {record['label_rate']} labels a second, but the model expects {labels.rate:g} "
                    f"of {labels.field}: set {labels.options[1]}, or make the labels again"
                )
            if record.get("clusters", labels.classes) != labels.classes:
                raise InputError(
                    f"{path}: {record['clusters']} clusters, but the model has {labels.classes} classes for "
                    f"{labels.field}: set {labels.options[0]}, or make the labels again"
                )
            if labels.features is not None and record.get("features", labels.features) != labels.features:
                raise InputError(
                    f"{path}: clusters of other features (configuration {record['features']}) than the model "
                    f"reads ({labels.features}): make codebook and labels again with its statistics"
                )


def _check_range(manifest: Manifest, labels: LabelSet) -> None:
    table = label_table(labels.field)
    ragged = manifest.labels[table]
    if ragged.flat.max(initial=0) < labels.classes:
        return
    place = int(np.argmax(ragged.flat >= labels.classes))
    i = int(np.searchsorted(ragged.offsets, place, side="right")) - 1
    raise InputError(
        f"{table}: utterance {manifest.ids[i]} has the label {int(ragged.flat[place])}, but the model has "
        f"{labels.classes} classes for {labels.field}: give it the number of clusters ({labels.options[0]})"
    )


def _check_rate(manifest: Manifest, labels: LabelSet, excess: np.ndarray) -> None:
    """Short utterances are never 0.5 s wrong, so the rate of all labels together must be about right too."""
    table, seconds = label_table(labels.field), manifest.seconds
    counts = manifest.labels[table].lengths
    found = counts.sum() / max(seconds[counts > 0].sum(), 1e-9)
    wrong = np.flatnonzero(np.abs(excess) > WRONG_SECONDS)
    mend = f"mend {labels.options[1]}, or make the labels again"
    if len(wrong):
        i = int(wrong[0])
        raise InputError(
            f"{table}: the labels of {len(wrong)} of {len(manifest)} utterances are more than "
            f"{WRONG_SECONDS} s longer or shorter than the audio ({manifest.ids[i]}: {counts[i]} labels at "
            f"{labels.rate:g} Hz for {seconds[i]:.2f} s); all together are {found:.1f} a second: {mend}"
        )
    if found and not 1 / WRONG_RATE < found / labels.rate < WRONG_RATE:
        raise InputError(f"{table}: {found:.1f} labels a second, not {labels.rate:g}: {mend}")
