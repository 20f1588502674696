"""Frames of a data directory, utterance by utterance: as they were dumped, or made of its audio or video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.clustering.video_source import VideoSource
from speechkit.config import from_dict, load_kind
from speechkit.data.archive import read_array
from speechkit.data.audio import read_audio
from speechkit.data.feature_record import same_features
from speechkit.data.kaldi_dir import DataDir, read_data_dir
from speechkit.data.parallel import run_parallel
from speechkit.errors import BadSample, InputError
from speechkit.files import read_json
from speechkit.frontends import FEATURES, VIDEO

# Utterances that one process works on at once.
PIECE = 32
SHOWN = 20  # utterances named in an error
KINDS = {**FEATURES, **VIDEO}


@dataclass(frozen=True)
class Kind:
    """Which features, and when their frames are.

    Attributes:
        config: of the frontend, or None for features that another program dumped.
        speaker_cmvn: each speaker's frames were normalised.
        rate: frames a second.
        offset: seconds from the beginning of the audio to the middle of the first frame.
    """

    config: Any
    speaker_cmvn: bool
    rate: float
    offset: float

    @classmethod
    def of(cls, config: Any, speaker_cmvn: bool = False) -> Kind:
        """The kind that a frontend makes."""
        extractor = load_kind(KINDS, config.name).build(config)
        rate = extractor.rate
        return cls(config, speaker_cmvn, rate / extractor.shift, extractor.middle / rate)

    @classmethod
    def unknown(cls, rate: float) -> Kind:
        """Features of another program, at so many frames a second."""
        return cls(None, False, rate, 0.5 / rate)

    @property
    def of_video(self) -> bool:
        """Whether these are patches of video."""
        return self.config is not None and self.config.name in VIDEO

    def processes(self, jobs: int) -> int:
        """How many of so many processes may compute these features: one alone can feed a GPU."""
        return jobs if getattr(self.config, "device", "cpu") == "cpu" else 1


def read_kind(folder: str | Path, rate: float | None = None) -> Kind:
    """Says what the feats.scp of a data directory holds.

    Args:
        folder: the data directory.
        rate: frames a second, for features that have no features.json.

    Raises:
        InputError: no features there, or nothing says how many of them make a second.
    """
    folder = Path(folder)
    if not (folder / "feats.scp").is_file():
        raise InputError(f"{folder / 'feats.scp'}: no such file; run speechkit features, or give --config")
    path = folder / "features.json"
    if not path.is_file():
        if rate is None:
            raise InputError(
                f"{path}: no such file; give --label-rate, the frames a second of {folder}/feats.scp"
            )
        return Kind.unknown(rate)
    return kind_from(read_json(path), path)


def kind_from(record: Any, path: Path) -> Kind:
    """The kind described by features.json, or by what was kept of it; `path` is for messages."""
    values = record.get("config") if isinstance(record, dict) else None
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise InputError(f"{path}: no record of a configuration; run speechkit features again")
    try:
        config = from_dict(load_kind(KINDS, values["name"]).Config, values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Kind.of(config, bool(record.get("speaker_cmvn")))


class FrameSource:
    """The frames of one data directory; picklable.

    Args:
        data: the directory.
        kind: the features wanted.

    Raises:
        InputError: neither dumped nor to be computed.
    """

    def __init__(self, data: DataDir, kind: Kind) -> None:
        self.path, self.kind, self.utterances = data.path, kind, data.utterances
        self.dumped = "feats.scp" in data.tables and (
            kind.config is None or same_features(data.path, kind.config, kind.speaker_cmvn)
        )
        if self.dumped:
            self.entries = data.tables["feats.scp"]
            self.counts = data.tables.get("utt2num_frames")
            self.inputs = [data.path / name for name in ("feats.scp", "features.json", "utt2num_frames")]
            return
        self.counts = data.tables.get("utt2num_samples")
        self.inputs = [data.path / name for name in ("wav.scp", "utt2num_samples")]
        if kind.config is None or kind.speaker_cmvn:
            what = "normalised by speaker" if kind.config is not None else "of another program"
            raise InputError(f"{data.path}: no such dumped features ({what}), and audio cannot give them")
        if self.counts is None or data.segments:
            raise InputError(
                f"{data.path}: has no {kind.config.name} features of this configuration and was not made by "
                "speechkit format; run speechkit features or speechkit format first"
            )
        self.entries = data.wav

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "extractor"}

    @cached_property
    def extractor(self) -> Any:
        """The frontend; every process makes its own."""
        return load_kind(FEATURES, self.kind.config.name).build(self.kind.config)

    def frames(self, utterance: str) -> int:
        """How many frames an utterance has."""
        if self.counts is None:
            return len(self.read(utterance))
        count = int(self.counts[utterance])
        return count if self.dumped else self.extractor.frames(count)

    def read(self, utterance: str) -> np.ndarray:
        """`(T, F)` float32.

        Raises:
            BadSample: unreadable, empty, or not finite.
        """
        entry = self.entries[utterance]
        if self.dumped:
            try:
                features = read_array(entry)
            except InputError as error:
                raise BadSample(utterance, "unreadable features", str(error)) from None
        else:
            features = self.extractor(
                read_audio(entry, rate=self.extractor.rate, fixed_rate=True, utterance=utterance)
            )
        if features.ndim != 2 or not len(features):
            drop = "speechkit format --min-seconds drops audio that is too short for one"
            raise BadSample(utterance, "no feature frame", f"an array of shape {features.shape}; {drop}")
        if not np.isfinite(features.sum(dtype=np.float64)):
            raise BadSample(utterance, "features are not finite", "NaN or infinity; make the features again")
        return features.astype(np.float32, copy=False)

    def part(self, utterance: str, start: int, count: int) -> np.ndarray:
        """Some of the frames of an utterance; raises BadSample as `read`."""
        return self.read(utterance)[start : start + count]


Source = FrameSource | VideoSource


def open_source(folder: str | Path, kind: Kind) -> Source:
    """The frames of a data directory.

    Raises:
        InputError: no directory, no utterance, or no such features.
        ProblemsError: a directory that is not valid.
    """
    data = read_data_dir(folder)
    if not data.utterances:
        raise InputError(f"{folder}: no utterances")
    return VideoSource(data, kind) if kind.of_video else FrameSource(data, kind)


@dataclass(frozen=True)
class _Reads:
    """Reads pieces of work in worker processes: arrays, or what was wrong."""

    sources: Sequence[Source]

    def __call__(self, piece: Sequence[tuple[int, str]]) -> list[np.ndarray | BadSample]:
        found: list[np.ndarray | BadSample] = []
        for source, utterance in piece:
            try:
                found.append(self.sources[source].read(utterance))
            except BadSample as error:
                found.append(error)
        return found


def pieces(items: Sequence) -> list[Sequence]:
    """Work cut into pieces of `PIECE`."""
    return [items[at : at + PIECE] for at in range(0, len(items), PIECE)]


def refuse(where: str, problems: Sequence[BadSample]) -> None:
    """Raises InputError with a line for each utterance that cannot be used (20 at most), if any."""
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(f"{where}: {len(problems)} utterance(s) cannot be used\n{lines}{more}")


def sample_frames(
    sources: Sequence[Source],
    max_frames: int,
    seed: int = 0,
    columns: slice = slice(None),
    jobs: int = 1,
) -> tuple[np.ndarray, int]:
    """Frames of utterances drawn at random until there are enough; never more than these in memory.

    Args:
        sources: the data.
        max_frames: at most so many frames; of the last utterance only the beginning is taken.
        seed: of the draw.
        columns: dimensions to keep.
        jobs: processes that read.

    Returns:
        `(N, F)` float32 in the order of the draw, and the number of utterances.

    Raises:
        InputError: an utterance cannot be used, dimensions differ, or utt2num_frames is wrong.
    """
    items = [(index, utterance) for index, source in enumerate(sources) for utterance in source.utterances]
    chosen, takes, total = [], [], 0
    for place in np.random.default_rng(seed).permutation(len(items)):
        index, utterance = items[place]
        takes.append(min(sources[index].frames(utterance), max_frames - total))
        chosen.append(items[place])
        total += takes[-1]
        if total >= max_frames:
            break
    frames, done, problems = np.empty((0, 0), np.float32), 0, []
    jobs = min(source.kind.processes(jobs) for source in sources)
    found = (array for part in run_parallel(_Reads(sources), pieces(chosen), jobs) for array in part)
    for (index, utterance), take, array in zip(chosen, takes, found):
        if isinstance(array, BadSample):
            problems.append(array)
            continue
        kept = array[:take, columns]
        if not frames.size:
            frames = np.empty((total, kept.shape[1]), np.float32)
        if kept.shape != (take, frames.shape[1]):
            raise InputError(
                f"{sources[index].path}: utterance {utterance}: features of shape {array.shape} where {take} "
                f"or more frames of {frames.shape[1]} dimensions are due; run speechkit features again"
            )
        frames[done : done + take] = kept
        done += take
    refuse(", ".join(str(source.path) for source in sources), problems)
    return frames, len(chosen)
