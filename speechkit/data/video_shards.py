"""Pieces of the work of `speechkit video`: a few clips become one archive, and what came of them a record.

A record holds a hash of all that its archives depend on, so that a command that was stopped goes on where it
was, and clips that did not change are not decoded again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from speechkit.config import check_range
from speechkit.data.archive import ArkWriter
from speechkit.data.array_records import RecordWriter
from speechkit.data.audio import audio_info, encode, is_silent
from speechkit.data.video import Clip, Limits, read_clip
from speechkit.errors import BadSample
from speechkit.files import atomic_write, read_json, write_json
from speechkit.frontends.colours import ColourSums
from speechkit.frontends.patches import FrameConfig

# Clips in one piece of work; fixed, so that the output does not depend on --jobs.
PIECE = 32
FORMAT = 2
MIN_SOUND = 0.1  # seconds, as `speechkit format` has it: more than an audio token


@dataclass(frozen=True)
class Options:
    """What to make.

    Attributes:
        fps: frames a second.
        size: their height and width in pixels.
        audio: take the sound from the clips; else the data directory has wav.scp.
        rate: Hz of the sound.
        kind: "train" may lose utterances, "evaluation" may not.
        max_drop: largest share of a training set that may be dropped.
        min_frames: fewest frames of a clip: one token.
        max_seconds: longest clip.
        max_difference: seconds between the ends of video and sound.
    """

    fps: float = 6.0
    size: int = 256
    audio: bool = False
    rate: int = 16000
    kind: Literal["train", "evaluation"] = "train"
    max_drop: float = 0.005
    min_frames: int = 3
    max_seconds: float = 30.0
    max_difference: float = 1.0

    def __post_init__(self) -> None:
        FrameConfig(self.fps, self.size)
        check_range("rate", self.rate, 1000, 655350)  # FLAC's highest
        check_range("max_drop", self.max_drop, 0, 1)
        check_range("min_frames", self.min_frames, 1)
        check_range("max_seconds", self.max_seconds, 0.1)
        check_range("max_difference", self.max_difference, 0)

    @property
    def config(self) -> FrameConfig:
        """Which frames, and how large."""
        return FrameConfig(float(self.fps), self.size)


@dataclass(frozen=True)
class Work:
    """One utterance.

    Attributes:
        utterance: its id.
        path: the clip; empty where video.scp has no row.
        sound: seconds of its sound outside of the clip, or its entry of wav.scp; None when it is inside.
    """

    utterance: str
    path: str
    sound: float | str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one utterance.

    Attributes:
        entry: of video_frames.scp; empty when dropped.
        frames: written.
        audio: entry of wav.scp, when the sound is the clip's.
        samples: of it.
        seconds: of the video; 0 when unknown.
        reason: why it was dropped.
        detail: particulars of the reason.
        note: something odd about a kept one.
    """

    utterance: str
    entry: str = ""
    frames: int = 0
    audio: str = ""
    samples: int = 0
    seconds: float = 0.0
    reason: str = ""
    detail: str = ""
    note: str = ""


@dataclass
class Part:
    """What one piece of work gave."""

    outcomes: list[Outcome]
    colours: ColourSums


@dataclass(frozen=True)
class ShardMaker:
    """Makes the archives of one piece of work, or finds them made; sent to worker processes.

    Args:
        folder: where archives and records lie.
        options: what to make.
    """

    folder: Path
    options: Options

    def __call__(self, job: tuple[int, list[Work], str]) -> Part:
        """Works on (number of the piece, its clips, hash of all that the result depends on)."""
        number, piece, key = job
        return self.found(number, key) or self._make(number, piece, key)

    def found(self, number: int, key: str) -> Part | None:
        """What a record tells, when it is of this work and its archives are there."""
        record, archives = self._record(number), self._archives(number)
        if not record.is_file():
            return None
        told = read_json(record)
        sizes = [path.stat().st_size if path.is_file() else 0 for path in archives]
        if not isinstance(told, dict) or told.get("key") != key or told.get("bytes") != sizes:
            return None
        return Part([Outcome(**values) for values in told["outcomes"]], ColourSums(**told["colours"]))

    def _record(self, number: int) -> Path:
        return self.folder / f"clips.{number:05d}.json"

    def _archives(self, number: int) -> list[Path]:
        names = [f"frames.{number:05d}.npy", f"audio.{number:05d}.ark"]
        return [self.folder / name for name in names[: 1 + self.options.audio]]

    def _make(self, number: int, piece: list[Work], key: str) -> Part:
        self._record(number).unlink(missing_ok=True)  # never a record of archives that were written anew
        part, archives = Part([], ColourSums()), self._archives(number)
        sink = ArkWriter(self.folder, archives[-1].stem) if self.options.audio else None
        with atomic_write(archives[0], "wb") as file:
            writer = RecordWriter(file, archives[0])
            if sink is None:
                part.outcomes = [self._one(work, writer, None, part.colours) for work in piece]
            else:
                with sink:
                    part.outcomes = [self._one(work, writer, sink, part.colours) for work in piece]
                sink.scp.unlink()
        told = {
            "key": key,
            "bytes": [path.stat().st_size for path in archives],
            "outcomes": [asdict(outcome) for outcome in part.outcomes],
            "colours": asdict(part.colours),
        }
        write_json(self._record(number), told)
        return part

    def _one(self, work: Work, writer: RecordWriter, sink: ArkWriter | None, colours: ColourSums) -> Outcome:
        try:
            clip = self._read(work)
        except BadSample as error:
            return Outcome(work.utterance, reason=error.reason, detail=error.detail)
        seconds = clip.seconds
        try:
            self._check_sound(work, clip)
        except BadSample as error:
            return Outcome(work.utterance, seconds=seconds, reason=error.reason, detail=error.detail)
        colours.add(clip.frames)
        entry, audio, samples = writer.write(clip.frames), "", 0
        if sink is not None:
            audio, samples = (
                sink.write_audio(work.utterance, encode(clip.sound, self.options.rate)),
                len(clip.sound),
            )
        silent = sink is not None and is_silent(clip.sound)
        note = "silent" if silent else "black" if not clip.frames.any() else ""
        return Outcome(work.utterance, entry, len(clip.frames), audio, samples, seconds, note=note)

    def _read(self, work: Work) -> Clip:
        options = self.options
        if not work.path:
            raise BadSample(work.utterance, "no video", "video.scp has no row for it")
        return read_clip(
            work.path,
            options.config,
            utterance=work.utterance,
            limits=Limits(options.min_frames, options.max_seconds),
            rate=options.rate if options.audio else None,
        )

    def _check_sound(self, work: Work, clip: Clip) -> None:
        """Raises BadSample when there is hardly any sound, or much more or less of it than of video."""
        heard = work.sound
        if isinstance(heard, str):
            info = audio_info(heard, utterance=work.utterance)
            heard = info.samples / info.rate
        elif heard is None:
            heard = len(clip.sound) / self.options.rate
        if heard < MIN_SOUND:
            raise BadSample(
                work.utterance, "too short", f"{heard:.3f} s of sound, {MIN_SOUND:g} s are needed; remove it"
            )
        if abs(heard - clip.seconds) > self.options.max_difference:
            raise BadSample(
                work.utterance,
                "video and sound differ in length",
                f"{clip.seconds:.2f} s and {heard:.2f} s, --max-difference {self.options.max_difference:g}",
            )
