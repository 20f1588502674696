"""Fields of batches that lie in records of arrays: frames of video, and labels too many for text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechkit.data.array_records import read_record
from speechkit.data.labels import label_array_table
from speechkit.errors import BadSample, InputError
from speechkit.files import read_json

if TYPE_CHECKING:
    from speechkit.data.dataset import Sample

FRAMES = "video_frames.scp"


class Video:
    """Frames of a clip, `(T, H, W, 3)` uint8; none for an utterance of a directory without video."""

    tables = (FRAMES,)

    def __call__(self, sample: Sample) -> np.ndarray:
        frames = _whole(sample, FRAMES)
        if frames is None:
            return np.zeros((0, 0, 0, 3), np.uint8)
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise BadSample(sample.id, "no frames of video", f"an array of {frames.dtype} {frames.shape}")
        return frames


class ArrayLabels:
    """Labels of patches, in the order of the patches; none for an utterance of a directory without them.

    Args:
        name: `kmeans_<name>`.
    """

    def __init__(self, name: str) -> None:
        self.tables = (label_array_table(name),)

    def __call__(self, sample: Sample) -> np.ndarray:
        labels = _whole(sample, self.tables[0])
        if labels is None:
            return np.zeros(0, np.int64)
        if labels.ndim != 1 or labels.dtype.kind not in "ui":
            raise BadSample(sample.id, "no labels of patches", f"an array of {labels.dtype} {labels.shape}")
        return labels.astype(np.int64)


def check_frames(folders: Sequence[str | Path], statistics: Mapping[str, Any] | None) -> None:
    """Compares the frames of data directories with those that a model's statistics are of, by their hashes.

    Args:
        folders: data directories; those without video do not count.
        statistics: the content of video_stats.json, or None.

    Raises:
        InputError: another rate or size.
    """
    wanted = (statistics or {}).get("config_hash")
    for path in (Path(folder) / "video.json" for folder in folders):
        found = read_json(path).get("config_hash") if path.is_file() else wanted
        if wanted is not None and found != wanted:
            raise InputError(
                f"{path}: other frames (configuration {found}) than the model's video_stats.json is of "
                f"({wanted}); run speechkit video with the same --fps and --size"
            )


def _whole(sample: Sample, table: str) -> np.ndarray | None:
    """The array of an utterance, or None where its directory has no such table."""
    if sample.crop is not None or sample.speed != 1:
        raise ValueError(f"{table}: video follows neither crops nor a change of speed")
    entry = sample.context.manifest.tables[table][sample.index]
    if not entry:
        return None
    try:
        return read_record(entry)
    except InputError as error:
        raise BadSample(sample.id, f"unreadable {table}", str(error)) from None
