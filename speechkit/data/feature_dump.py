"""Features of a formatted data directory: archives, feats.scp, utt2num_frames, features.json, cmvn.json."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.config import load_config, load_kind, parse_override, read_yaml, to_dict
from speechkit.data.archive import ArkWriter
from speechkit.data.audio import read_audio
from speechkit.data.augment import Config as Augmentation
from speechkit.data.augment import change_speed, speed_samples
from speechkit.data.kaldi_dir import DataDir, read_data_dir
from speechkit.data.parallel import run_parallel
from speechkit.data.tables import features_table, render_table
from speechkit.errors import BadSample, InputError
from speechkit.files import atomic_folder, hash_json, write_json, write_text
from speechkit.frontends import FEATURES
from speechkit.frontends.cmvn import Statistics
from speechkit.stamp import Stamp

# Utterances in one archive; fixed, so that the output does not depend on --jobs.
PIECE = 256
# Utterances handed to an extractor that works on several at once.
TOGETHER = 64
SPEECH_FEATURES = 2  # Kaldi's compression method for them, about one byte a value


@dataclass(frozen=True)
class Options:
    """What to make.

    Attributes:
        dump: write archives and feats.scp.
        cmvn: write cmvn.json, the mean and standard deviation over all frames.
        speaker_cmvn: normalise each speaker's frames before they are dumped.
        compress: a byte a value, with Kaldi's small loss.
        speeds: further speeds to dump the features at, for training with speed perturbation (augment.speeds).

    Raises:
        ValueError: speeds twice, or with nothing that a training could use.
    """

    dump: bool = True
    cmvn: bool = False
    speaker_cmvn: bool = False
    compress: bool = False
    speeds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        Augmentation([1.0, *self.speeds])
        if len({1.0, *self.speeds}) <= len(self.speeds):
            raise ValueError(f"speeds {list(self.speeds)}: each once, and 1 is always made")
        if self.speeds and (self.speaker_cmvn or not self.dump):
            raise ValueError("speeds: for dumped features that are not normalised by speaker")


def load_feature_config(
    file: str | Path | None = None, overrides: Sequence[str] = (), kinds: Mapping[str, str] = FEATURES
) -> Any:
    """Reads the configuration of a frontend, one of `kinds`; its `name` (fbank unless given) says which.

    Raises:
        InputError: an unknown frontend, key or value.
    """
    values = dict(read_yaml(file)[0]) if file is not None else {}
    for override in overrides:
        values.update(parse_override(override)[0])
    return load_config(load_kind(kinds, values.get("name", "fbank")).Config, file, overrides)


@dataclass
class _Made:
    """What one piece of work gave.

    Attributes:
        entries: table -> entries by utterance.
        frames: frame counts by utterance, at speed 1.
        statistics: of the frames at speed 1.
        problems: what went wrong.
    """

    statistics: Statistics
    entries: dict[str, dict[str, str]] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Maker:
    """Makes the features of one piece; sent to worker processes."""

    config: Any
    options: Options
    wav: dict[str, str]
    folder: Path | None
    shown: Path

    def __call__(self, job: tuple[int, list[list[str]]]) -> _Made:
        """Works on (number of the piece, utterances by speaker)."""
        number, groups = job
        extractor = load_kind(FEATURES, self.config.name).build(self.config)
        made, writers = _Made(Statistics(extractor.dim)), {}
        with ExitStack() as stack:
            if self.folder is not None:
                for speed in (1.0, *self.options.speeds):
                    writers[speed] = stack.enter_context(self._writer(features_table(speed), number))
            self._groups(groups, extractor, made, writers)
        for writer in writers.values():
            writer.scp.unlink()
        return made

    def _writer(self, table: str, number: int) -> ArkWriter:
        name = f"{table.removesuffix('.scp')}.{number:05d}"
        compression = SPEECH_FEATURES if self.options.compress else None
        return ArkWriter(self.folder, name, shown=self.shown, compression=compression)

    def _groups(
        self, groups: list[list[str]], extractor: Any, made: _Made, writers: Mapping[float, ArkWriter]
    ) -> None:
        for group in groups:
            # a whole speaker is in memory for its normalisation; else what the extractor works on at once
            size = len(group) if self.options.speaker_cmvn else TOGETHER if hasattr(extractor, "many") else 1
            for start in range(0, len(group), size):
                self._batch(group[start : start + size], extractor, made, writers)

    def _batch(
        self, batch: list[str], extractor: Any, made: _Made, writers: Mapping[float, ArkWriter]
    ) -> None:
        waveforms: dict[str, np.ndarray] = {}
        for utterance in batch:
            try:
                waveforms[utterance] = self._read(utterance, extractor)
            except BadSample as error:
                made.problems.append(str(error))
        features = _extract(extractor, waveforms)
        if self.options.speaker_cmvn:
            speaker = Statistics(extractor.dim)
            for values in features.values():
                speaker.add(values)
            features = {utterance: speaker.apply(values) for utterance, values in features.items()}
        for utterance, values in features.items():
            made.statistics.add(values)
            made.frames[utterance] = len(values)
        for speed, writer in writers.items():
            if speed != 1:
                changed = {utterance: change_speed(w, speed) for utterance, w in waveforms.items()}
                features = _extract(extractor, changed)
            entries = made.entries.setdefault(features_table(speed), {})
            for utterance, values in features.items():
                entries[utterance] = writer.write(utterance, values)

    def _read(self, utterance: str, extractor: Any) -> np.ndarray:
        waveform = read_audio(self.wav[utterance], rate=extractor.rate, fixed_rate=True, utterance=utterance)
        samples = min(speed_samples(len(waveform), speed) for speed in (1.0, *self.options.speeds))
        if not extractor.frames(samples):
            raise BadSample(utterance, "no feature frame", f"{samples} samples are less than one window")
        return waveform


def _extract(extractor: Any, waveforms: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    many = getattr(extractor, "many", lambda several: map(extractor, several))
    return dict(zip(waveforms, many(list(waveforms.values()))))


def dump_features(
    path: str | Path, config: Any, options: Options, *, jobs: int = 1, force: bool = False
) -> dict | None:
    """Makes the features of a formatted data directory, in that directory.

    Args:
        path: a directory made by `speechkit format`.
        config: of a frontend in FEATURES.
        options: what to make.
        jobs: processes.
        force: work even when nothing changed.

    Returns:
        The content of features.json, or None when everything was up to date.

    Raises:
        InputError: the directory is broken or not formatted, or features cannot be computed, with a
            line for each such utterance; the directory then holds no new features.
    """
    path = Path(path)
    if getattr(config, "device", "cpu") != "cpu":
        jobs = 1  # one process feeds the GPU
    data = read_data_dir(path)
    if not data.utterances or "utt2num_samples" not in data.tables or data.segments:
        raise InputError(
            f"{path}: empty or not made by speechkit format; run that first and name its --out here"
        )
    if not (options.dump or options.cmvn):
        raise InputError(f"{path}: nothing to make; --dump false needs --cmvn true")
    tables = [features_table(speed) for speed in (1.0, *options.speeds)]
    made = [path / name for name in (*tables, "utt2num_frames", "features.json", "cmvn.json")]
    stamp = Stamp(
        path / ("feats" if options.dump else "cmvn.json"),
        "features",
        [to_dict(config), vars(options)],
        [path / "wav.scp", path / "utt2num_samples", path / "utt2spk", *made],
        force,
    )
    if stamp.fresh():
        return None
    if options.dump:
        with atomic_folder(path / "feats") as folder:
            parts = _make(data, config, options, jobs, folder, path / "feats")
            # never an scp whose archives are not those it was written for
            for old in path.glob("feats*.scp"):
                old.unlink()
    else:
        parts = _make(data, config, options, jobs, None, path / "feats")
    summary = _write_tables(path, config, options, parts)
    stamp.write()
    return summary


def _pieces(data: DataDir, options: Options) -> list[tuple[int, list[list[str]]]]:
    if options.speaker_cmvn:
        return [(number, [group]) for number, group in enumerate(data.spk2utt.values())]
    ids = data.utterances
    return [(number, [ids[at : at + PIECE]]) for number, at in enumerate(range(0, len(ids), PIECE))]


def _make(
    data: DataDir, config: Any, options: Options, jobs: int, folder: Path | None, shown: Path
) -> list[_Made]:
    maker = _Maker(config, options, data.wav, folder, shown)
    parts = list(run_parallel(maker, _pieces(data, options), jobs))
    problems = [problem for part in parts for problem in part.problems]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(
            f"{data.path}: no features for {len(problems)} utterance(s); format the data again\n{lines}"
        )
    return parts


def _write_tables(path: Path, config: Any, options: Options, parts: list[_Made]) -> dict:
    statistics = parts[0].statistics
    for part in parts[1:]:
        statistics.merge(part.statistics)
    frames = {utterance: count for part in parts for utterance, count in part.frames.items()}
    values = to_dict(config)
    summary = {
        "config": values,
        "config_hash": hash_json(values),
        "dim": len(statistics.mean),
        "utterances": len(frames),
        "frames": statistics.frames,
        "compressed": options.compress,
        "speaker_cmvn": options.speaker_cmvn,
        "speeds": [1.0, *options.speeds],
    }
    if options.cmvn:
        origin = {key: summary[key] for key in ("config", "config_hash", "speaker_cmvn")}
        write_json(path / "cmvn.json", {**statistics.to_dict(), **origin})
    if options.dump:
        write_json(path / "features.json", summary)
        write_text(path / "utt2num_frames", _table({name: str(count) for name, count in frames.items()}))
        for table in parts[0].entries:
            write_text(path / table, _table({k: v for part in parts for k, v in part.entries[table].items()}))
    made = [f"{len(frames)} utterances", f"{statistics.frames} frames of {config.name} {summary['dim']}"]
    made += [f"at speed {speed:g} too" for speed in options.speeds] + ["cmvn.json"] * options.cmvn
    print(f"speechkit features: {path}: {', '.join(made)}", file=sys.stderr)
    return summary


def _table(rows: dict[str, str]) -> str:
    return render_table(rows).decode()
