"""Stage 2: a data directory with audio of any kind becomes one with checked mono audio of one rate.

Every recording is decoded once: segments are cut, a channel chosen, the rate changed, and the sample
counts are those of the samples written. What cannot be used is dropped with its reason in the ledger
(training sets, up to a share) or stops the stage (evaluation sets). The result appears all at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from speechkit.config import check_range
from speechkit.data import audio
from speechkit.data.archive import ArkWriter, split_offset
from speechkit.data.kaldi_dir import DataDir, read_data_dir, write_data_dir
from speechkit.data.ledger import Ledger
from speechkit.data.parallel import run_parallel
from speechkit.data.tables import table_key
from speechkit.errors import BadSample, InputError
from speechkit.files import atomic_folder, hash_json
from speechkit.stamp import Stamp

# Recordings in one piece of work, and in one archive; fixed, so that the output does not depend on --jobs.
PIECE = 64
# Tables that describe the audio as it was before.
STALE = ("feats*.scp", "vad.scp", "cmvn.scp", "utt2dur", "utt2num_frames", "utt2num_samples")
# Bytes written for each byte read, at most (lossy formats grow); others count once.
GROWTH = {".mp3": 6.0, ".ogg": 8.0, ".opus": 12.0, ".flac": 1.1}
SPARE_BYTES = 16 << 20


@dataclass(frozen=True)
class Options:
    """How to format.

    Attributes:
        rate: Hz of the result.
        kind: "train" may lose utterances, "evaluation" may not.
        min_seconds: shorter training utterances are dropped.
        max_seconds: longer ones are dropped.
        max_drop: largest share of a training set that may be dropped.
        form: one FLAC file an utterance, or FLAC in archives ("ark").
        channel: which of several channels, from 0; None insists on mono.
        raw_format: `encoding,rate,channels` of headerless *.raw and *.pcm files.
        allow_pipes: run `sox ... |` entries by the rules of pipes.py.
        resample: False refuses other rates.
        link: hard links instead of copies of files that are already as wanted.
    """

    rate: int = 16000
    kind: Literal["train", "evaluation"] = "train"
    min_seconds: float = 0.1
    max_seconds: float = 30.0
    max_drop: float = 0.005
    form: Literal["flac", "ark"] = "flac"
    channel: int | None = None
    raw_format: str | None = None
    allow_pipes: bool = False
    resample: bool = True
    link: bool = False

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 1000, 655350)  # FLAC's highest
        check_range("min_seconds", self.min_seconds, 0)
        check_range("max_seconds", self.max_seconds, self.min_seconds)
        check_range("max_drop", self.max_drop, 0, 1)
        if self.raw_format is not None:
            audio.parse_raw_format(self.raw_format)


@dataclass(frozen=True)
class Work:
    """One recording and the utterances in it as (id, start, end), in seconds or None."""

    recording: str
    entry: str
    utterances: tuple[tuple[str, float | None, float | None], ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one utterance.

    Attributes:
        entry: of the new wav.scp; empty when dropped.
        samples: written, at the new rate.
        seconds: before; 0 when unknown.
        reason: why it was dropped.
        detail: particulars of the reason.
        note: something odd about a kept one, such as "silent".
    """

    utterance: str
    entry: str = ""
    samples: int = 0
    seconds: float = 0.0
    reason: str = ""
    detail: str = ""
    note: str = ""


def work_of(data: DataDir) -> list[Work]:
    """The recordings in use, each with its utterances, both sorted."""
    members: dict[str, list[tuple[str, float | None, float | None]]] = {}
    for utterance in data.utterances:
        segment = data.segments.get(utterance)
        times = (segment.start, segment.end) if segment else (None, None)
        members.setdefault(data.recording(utterance), []).append((utterance, *times))
    return [Work(name, data.wav[name], tuple(members[name])) for name in sorted(members)]


class _Sink:
    """Where the audio of one piece of work goes; `shown` is the folder's name once it is in place."""

    def __init__(self, folder: Path, shown: Path, options: Options, number: int) -> None:
        self.folder, self.shown, self.options = folder, shown, options
        self.ark = ArkWriter(folder, f"audio.{number:05d}", shown=shown) if options.form == "ark" else None

    def __enter__(self) -> _Sink:
        if self.ark:
            self.ark.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.ark:
            self.ark.__exit__(*error)
            self.ark.scp.unlink(missing_ok=True)

    def _place(self, utterance: str, suffix: str) -> Path:
        # Sub-folders keep directories small; the hash, not the speaker, because it is a safe name.
        return Path(sha256(utterance.encode()).hexdigest()[:2]) / (utterance + suffix)

    def put(self, utterance: str, samples: np.ndarray) -> str:
        """Writes samples `(S,)`; returns the entry for wav.scp."""
        data = audio.encode(samples, self.options.rate)
        if self.ark:
            return self.ark.write_audio(utterance, data)
        place = self._place(utterance, ".flac")
        (self.folder / place).parent.mkdir(exist_ok=True)
        (self.folder / place).write_bytes(data)
        return str(self.shown / place)

    def take(self, utterance: str, source: str, suffix: str) -> str:
        """Takes over a file that is already as wanted."""
        if self.ark:
            return self.ark.write_audio(utterance, Path(source).read_bytes())
        place = self._place(utterance, suffix)
        target = self.folder / place
        target.parent.mkdir(exist_ok=True)
        if self.options.link:
            try:
                os.link(os.path.realpath(source), target)
                return str(self.shown / place)
            except OSError:  # another file system
                pass
        shutil.copyfile(source, target)
        return str(self.shown / place)


def _format_piece(job: tuple[int, list[Work]], folder: Path, shown: Path, options: Options) -> list[Outcome]:
    number, piece = job
    with _Sink(folder, shown, options, number) as sink:
        return [outcome for work in piece for outcome in _format_recording(work, sink, options)]


def _format_recording(work: Work, sink: _Sink, options: Options) -> Iterator[Outcome]:
    try:
        heard = audio.load_recording(
            work.entry,
            utterance=work.recording,
            raw_format=options.raw_format,
            allow_pipes=options.allow_pipes,
        )
    except BadSample as error:
        for utterance, start, end in work.utterances:
            yield Outcome(utterance, "", 0, _claimed(start, end, 0.0), error.reason, error.detail)
        return
    for utterance, start, end in work.utterances:
        try:
            yield _format_utterance(utterance, start, end, heard, work.entry, sink, options)
        except BadSample as error:
            seconds = _claimed(start, end, len(heard.samples) / heard.rate)
            yield Outcome(utterance, "", 0, seconds, error.reason, error.detail)


def _claimed(start: float | None, end: float | None, whole: float) -> float:
    """Seconds an utterance that cannot be used was meant to have."""
    return whole if start is None or end is None else max(end - start, 0.0)


def _format_utterance(
    utterance: str,
    start: float | None,
    end: float | None,
    heard: audio.Recording,
    entry: str,
    sink: _Sink,
    options: Options,
) -> Outcome:
    samples = audio.to_mono(
        heard,
        start=start,
        end=end,
        channel=options.channel,
        rate=options.rate,
        fixed_rate=not options.resample,
        utterance=utterance,
    )
    seconds = len(samples) / options.rate
    outcome = Outcome(utterance, samples=len(samples), seconds=seconds)
    if options.kind == "train" and seconds < options.min_seconds:
        return replace(
            outcome, reason="too short", detail=f"{seconds:.3f} s, --min-seconds {options.min_seconds}"
        )
    if options.kind == "train" and seconds > options.max_seconds:
        return replace(
            outcome, reason="too long", detail=f"{seconds:.3f} s, --max-seconds {options.max_seconds}"
        )
    as_wanted = (
        heard.rate == options.rate and heard.samples.shape[1] == 1 and heard.bits == 16 and start is None
    )
    if as_wanted and heard.format in ("flac", "wav") and os.path.isfile(entry) and not split_offset(entry):
        written = sink.take(utterance, entry, f".{heard.format}")
    else:
        written = sink.put(utterance, samples)
    note = "silent" if audio.is_silent(samples) else "clipped" if np.abs(samples).max() > 1 else ""
    return replace(outcome, entry=written, note=note)


def sources_of(work: list[Work]) -> list[list]:
    """Entry, size and time of every file read, as far as there; for the stamp and the estimate of space."""
    rows = []
    for name in dict.fromkeys(one.entry for one in work):
        path = split_offset(name)[0] if split_offset(name) else name
        try:
            stat = os.stat(path if os.path.exists(path) else path.rpartition("#")[0])
            rows.append([name, stat.st_size, stat.st_mtime_ns])
        except OSError:
            continue
    return rows


def check_space(sources: list[list], folder: Path) -> None:
    """Raises InputError when the disk is too small for what these sources become (a rough estimate)."""
    sizes = {(split_offset(name) or (name, 0))[0]: size for name, size, _ in sources}
    need = SPARE_BYTES + sum(
        size * GROWTH.get(Path(name).suffix.lower(), 1.0) for name, size in sizes.items()
    )
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(
            f"{folder}: about {need / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; "
            "free some or choose another --out"
        )


def remove_leftovers(out: Path) -> None:
    """Removes temporary folders of runs that were killed."""
    for folder in out.parent.glob(f".{out.name}.*.tmp"):
        owner = folder.name.split(".")[-2]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}") and os.path.exists("/proc/self"):
            shutil.rmtree(folder, ignore_errors=True)


def format_data_dir(
    source: str | Path, out: str | Path, options: Options, *, jobs: int = 1, force: bool = False
) -> Ledger | None:
    """Formats a data directory; the same call again does nothing when nothing changed.

    Args:
        source: a Kaldi data directory.
        out: the directory to make, replaced as a whole; paths in its wav.scp begin with `out` as given.
        options: how.
        jobs: processes.
        force: work even when nothing changed.

    Returns:
        The ledger, or None when `out` was up to date.

    Raises:
        InputError: the directory is broken, too much must be dropped, or the disk is too small;
            `out` is then as it was before.
    """
    source, out = Path(source), Path(out)
    data = read_data_dir(source)
    if not data.wav:
        raise InputError(f"{source}: no wav.scp, so there is no audio to format")
    work = work_of(data)
    sources = sources_of(work)
    # Later steps put further tables beside these, so the stamp looks at what this one makes.
    made = [out / name for name in ("wav.scp", "text", "utt2spk", "utt2num_samples", "ledger.jsonl")]
    settings = {**asdict(options), "sources": hash_json(sources)}
    tables = sorted(path for path in source.iterdir() if path.is_file() and table_key(path.name))
    stamp = Stamp(out / "audio", "format", settings, [*tables, *made], force)
    if stamp.fresh():
        return None
    check_space(sources, out.parent)
    remove_leftovers(out)
    pieces = [(number, work[at : at + PIECE]) for number, at in enumerate(range(0, len(work), PIECE))]
    with atomic_folder(out) as folder:
        (folder / "audio").mkdir()
        function = partial(_format_piece, folder=folder / "audio", shown=out / "audio", options=options)
        outcomes = [outcome for part in run_parallel(function, pieces, jobs) for outcome in part]
        ledger = judge(outcomes, data, options)
        write_data_dir(formatted(data, outcomes), folder)
        ledger.write(folder / "ledger.jsonl")
    stamp.write()
    report("format", outcomes, ledger, out)
    return ledger


def judge(outcomes: list, data: DataDir, options: Any, stage: str = "format") -> Ledger:
    """Every utterance's fate; InputError with a line for each dropped one when they are too many.

    Args:
        outcomes: with the attributes of `Outcome` that are read here.
        data: the data set that came in.
        options: `kind` and `max_drop` of `Options`.
        stage: the verb, for the ledger.
    """
    ledger = Ledger(stage, options.kind, options.max_drop)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.utterance):
        if outcome.entry:
            ledger.keep(outcome.utterance, outcome.seconds)
        else:
            ledger.drop(outcome.utterance, outcome.seconds, outcome.reason, outcome.detail)
    try:
        if ledger.fates and not ledger.kept:
            raise InputError(f"{data.path}: not one of {len(ledger.fates)} utterances can be used")
        ledger.check(data.utterances)
    except InputError as error:
        lines = [f"  {fate.utterance}: {fate.reason}: {fate.detail}" for fate in ledger.dropped]
        raise InputError("\n".join([str(error), *lines])) from None
    return ledger


def formatted(data: DataDir, outcomes: list[Outcome]) -> DataDir:
    """The data set that was kept: new wav.scp and utt2num_samples, no segments, no table of the old audio."""
    kept = {outcome.utterance: outcome for outcome in outcomes if outcome.entry}
    chosen = data.select(kept)
    carried = {
        name: rows
        for name, rows in chosen.tables.items()
        if not any(fnmatchcase(name, old) for old in STALE) and table_key(name) != "recording"
    }
    counts = {utterance: str(outcome.samples) for utterance, outcome in kept.items()}
    return replace(
        chosen,
        wav={utterance: outcome.entry for utterance, outcome in kept.items()},
        segments={},
        tables={**carried, "utt2num_samples": counts},
    )


def report(verb: str, outcomes: list, ledger: Ledger, out: Path, made: str = "") -> None:
    """Says on standard error what a verb kept, dropped and `made`, and names what is odd; see `judge`."""
    notes = Counter(outcome.note for outcome in outcomes if outcome.note)
    for note in sorted(notes):
        named = sorted(outcome.utterance for outcome in outcomes if outcome.note == note)
        print(f"speechkit {verb}: warning: {notes[note]} {note}: {', '.join(named[:5])}", file=sys.stderr)
    reasons = Counter(fate.reason for fate in ledger.dropped)
    dropped = "".join(f", {count} {reason}" for reason, count in sorted(reasons.items()))
    hours = sum(fate.seconds for fate in ledger.fates if fate.kept) / 3600
    print(
        f"speechkit {verb}: {out}: kept {len(ledger.kept)} of {len(ledger.fates)} utterances, "
        f"{hours:.3f} hours{made}; dropped {len(ledger.dropped)}{dropped}",
        file=sys.stderr,
    )
