"""Video in: a clip of any container and codec that ffmpeg reads, to frames at a few a second and to sound.

The packets of a clip are read once. Frame i of the result is the picture seen at (i + 1/2) / fps seconds, so
that pictures of slow or uneven video are repeated and those of fast video left out; there are
duration * fps of them, rounded. Pictures that nobody asked for are not even decoded where no other one
depends on them. PyAV is imported when a clip is opened.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.data.video_decoding import Timeline, Track, decoded, pictures, sound
from speechkit.errors import BadSample, InputError
from speechkit.frontends.patches import FrameConfig

MISSING_SECONDS = 0.5
"""How much earlier than its header says a clip may end."""


@dataclass(frozen=True)
class Limits:
    """What is refused.

    Attributes:
        min_frames: fewest frames of the result.
        max_seconds: longest video.
    """

    min_frames: int = 1
    max_seconds: float = math.inf


@dataclass(frozen=True)
class Clip:
    """A decoded clip.

    Attributes:
        frames: `(T, size, size, 3)` uint8, red, green, blue.
        seconds: of the video, before frames were chosen.
        sound: `(S,)` float32, or None when it was not asked for.
    """

    frames: np.ndarray
    seconds: float
    sound: np.ndarray | None = None


def need_video_library() -> None:
    """Raises InputError where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError(
            "video needs PyAV, which is not installed; tools/setup.sh video (or pip install av)"
        ) from None


def read_clip(
    path: str,
    config: FrameConfig,
    *,
    utterance: str = "",
    limits: Limits = Limits(),
    rate: int | None = None,
) -> Clip:
    """Decodes a clip.

    Args:
        path: of the file.
        config: frames a second and their size.
        utterance: the id named in errors (the path when empty).
        limits: what is refused.
        rate: of the sound in Hz; None leaves the sound out.

    Raises:
        BadSample: missing, unreadable, truncated or damaged; without video, or without the sound asked for;
            too short or too long; the reason is short and countable.
    """
    name = utterance or path
    with _opened(path, name) as container:
        video, audio = _tracks(container, name, limits, with_sound=rate is not None)
        timeline = _timeline(video, name)
        if timeline.seconds > limits.max_seconds:
            raise _too_long(name, timeline.seconds, limits)
        _check_complete(container, [track for track in (video, audio) if track], name)
        chosen = _choose(timeline, config.fps, name, limits)
        frames = pictures(video, timeline, chosen, config.size, name)
        return Clip(frames, timeline.seconds, None if rate is None else sound(audio, rate, name))


@contextmanager
def _opened(path: str, name: str) -> Iterator[Any]:
    """The container; everything that goes wrong while it is open becomes a BadSample."""
    import av

    if not os.path.isfile(path):
        raise BadSample(name, "missing file", f"{path}: no such file; mend video.scp or copy it there")
    if not os.path.getsize(path):
        raise BadSample(name, "empty file", f"{path}: 0 bytes; copy it again or remove the entry")
    try:
        # A plain local file: entries of video.scp must not become addresses or playlists of others.
        options = {"protocol_whitelist": "file"}
        with av.open(
            f"file:{Path(path)}", "r", container_options=options, metadata_errors="replace"
        ) as container:
            yield container
    except av.FFmpegError as error:
        raise BadSample(
            name, "unreadable clip", f"{path}: {error.strerror}; copy it again or convert it with ffmpeg"
        ) from None


def _tracks(container: Any, name: str, limits: Limits, with_sound: bool) -> tuple[Track, Track | None]:
    """The best video stream and the sound that belongs to it, if there is any, with their packets."""
    from av.stream import Disposition

    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise BadSample(name, "no video", "the clip has no video stream; remove it from video.scp")
    tracks = {stream.index: Track(stream)}
    voice = container.streams.best("audio", stream)
    if with_sound and voice is None:
        raise BadSample(name, "no audio", "the clip has no audio stream; give wav.scp, or remove the clip")
    if voice is not None:
        tracks[voice.index] = Track(voice)
    if container.duration and container.duration / 1e6 > limits.max_seconds:
        raise _too_long(name, container.duration / 1e6, limits)
    begin, most = stream.start_time or 0, limits.max_seconds / stream.time_base
    for packet in container.demux([track.stream for track in tracks.values()]):
        if packet.size:  # nothing is in the mark of the end
            tracks[packet.stream_index].packets.append(packet)
        if packet.stream_index == stream.index and (packet.dts or begin) - begin > most:
            raise _too_long(name, float((packet.dts - begin) * stream.time_base), limits)
    return tracks[stream.index], tracks.get(voice.index) if voice is not None else None


def _too_long(name: str, seconds: float, limits: Limits) -> BadSample:
    return BadSample(name, "too long", f"{seconds:.2f} s, --max-seconds {limits.max_seconds:g}")


def _timeline(video: Track, name: str) -> Timeline:
    """By the packets' time stamps, or where they have none to trust by decoding every picture."""
    shown = [packet for packet in video.packets if not packet.is_discard]
    stamps = sorted(packet.pts for packet in shown if packet.pts is not None)
    if not stamps or len(set(stamps)) < len(shown):
        count = sum(1 for _ in decoded(video, name))
        rate = video.stream.average_rate or video.stream.guessed_rate or 25
        starts, length, stamps = np.arange(count) / float(rate), 1 / float(rate), None
    else:
        last = max(shown, key=lambda packet: packet.pts)
        starts = (np.array(stamps) - stamps[0]) * float(video.stream.time_base)
        length = float((last.duration or 0) * video.stream.time_base)
        length = length or float(np.median(np.diff(starts)) if len(starts) > 1 else 0)
    if not len(starts):
        raise BadSample(name, "zero frames", "the video stream holds no picture; remove it from video.scp")
    return Timeline(starts, float(starts[-1]) + length, stamps)


def _choose(timeline: Timeline, fps: float, name: str, limits: Limits) -> np.ndarray:
    """`(T,)` which picture, in order of time, each frame of the result is."""
    count = math.floor(timeline.seconds * fps + 0.5)
    if count < max(limits.min_frames, 1):
        detail = f"{timeline.seconds:.3f} s make {count} frames at {fps:g} a second"
        raise BadSample(name, "too short", f"{detail}, {max(limits.min_frames, 1)} are needed")
    middles = (np.arange(count) + 0.5) / fps
    return (np.searchsorted(timeline.starts, middles + 1e-9, side="right") - 1).clip(min=0)


def _check_complete(container: Any, tracks: list[Track], name: str) -> None:
    """Compares the packets with the length that the header promises, where it promises one."""
    found = max(track.seconds for track in tracks)
    promised = [
        (float(t.stream.duration * t.stream.time_base), t.seconds) for t in tracks if t.stream.duration
    ]
    streams = container.streams
    if len(promised) < len(tracks) == len(streams.video) + len(streams.audio):
        whole = (container.duration or 0) - max(container.start_time or 0, 0)
        promised.append((whole / 1e6, found))
    for due, there in promised:
        if due - there > MISSING_SECONDS:
            detail = f"{there:.2f} s of the {due:.2f} s that the header promises; copy the file again"
            raise BadSample(name, "truncated clip", detail)
