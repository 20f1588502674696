"""The streams of a clip decoded: chosen pictures, cropped and scaled, and sound of one channel."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechkit.data.audio import check_samples, resample
from speechkit.data.containers import AudioError
from speechkit.errors import BadSample

MAX_RATIO = 16
"""Largest ratio of a picture's sides: a wider one would take too much memory when its short side grows."""


@dataclass
class Track:
    """One stream of a clip: PyAV's object, and its packets that hold data."""

    stream: Any
    packets: list[Any] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first packet to the end of the last, whether shown or cut away by an edit list."""
        times = [p.dts if p.pts is None else p.pts for p in self.packets]
        ends = [time + (p.duration or 0) for time, p in zip(times, self.packets) if time is not None]
        return (
            float((max(ends) - min(t for t in times if t is not None)) * self.stream.time_base)
            if ends
            else 0.0
        )


@dataclass(frozen=True)
class Timeline:
    """When the pictures of a clip are seen.

    Attributes:
        starts: `(N,)` seconds from the first picture, rising.
        seconds: when the last one ends.
        keys: the time stamp of each; None when there are none to trust, and pictures are to be counted.
    """

    starts: np.ndarray
    seconds: float
    keys: list[int] | None


def decoded(track: Track, name: str, wanted: Container[int] | None = None) -> Iterator[Any]:
    """Decoded frames in order of time; with `wanted` time stamps, others only where these depend on them."""
    import av

    codec = track.stream.codec_context
    codec.flush_buffers()
    if not codec.is_open:
        codec.thread_count = 1  # clips are shared among processes
    try:
        for packet in (*track.packets, None):
            if track.stream.type == "video":
                spare = wanted is not None and packet is not None and packet.pts not in wanted
                codec.skip_frame = "NONREF" if spare else "DEFAULT"
            yield from codec.decode(packet)
    except av.FFmpegError as error:
        detail = f"{error.strerror} while decoding; copy the file again or remove the clip"
        raise BadSample(name, f"damaged {track.stream.type}", detail) from None


def pictures(video: Track, timeline: Timeline, chosen: np.ndarray, size: int, name: str) -> np.ndarray:
    """`(T, size, size, 3)` uint8: the chosen pictures, some perhaps several times."""
    keys = timeline.keys or range(len(timeline.starts))
    places: dict[int, list[int]] = {}
    for place, picture in enumerate(chosen.tolist()):
        places.setdefault(keys[picture], []).append(place)
    frames = np.empty((len(chosen), size, size, 3), np.uint8)
    scale = _Scale(size, name)
    # A decoder may leave out more than it was told to: then everything is decoded.
    for wanted in (places, None) if timeline.keys else (None,):
        left = set(places)
        for number, picture in enumerate(decoded(video, name, wanted)):
            key = picture.pts if timeline.keys else number
            if key in left and not picture.is_corrupt:
                frames[places[key]] = scale(picture)
                left.remove(key)
        if not left:
            return frames
    detail = (
        f"{len(left)} of {len(places)} pictures cannot be decoded; copy the file again or remove the clip"
    )
    raise BadSample(name, "damaged video", detail)


class _Scale:
    """Pictures to the middle `size x size` of what they are when their short side is `size` long."""

    def __init__(self, size: int, name: str) -> None:
        from av.video.reformatter import VideoReformatter

        self.size, self.name = size, name
        self.reformatter = VideoReformatter()  # keeps its tables from picture to picture

    def __call__(self, picture: Any) -> np.ndarray:
        """`(size, size, 3)` uint8."""
        short, long = sorted((picture.width, picture.height))
        if long > MAX_RATIO * short:
            detail = f"{picture.width} x {picture.height} pixels; cut the clip to a usual shape"
            raise BadSample(self.name, "odd frame size", detail)
        width, height = (round(side * self.size / short) for side in (picture.width, picture.height))
        scaled = self.reformatter.reformat(picture, width, height, "rgb24", interpolation="BILINEAR")
        left, top = (width - self.size) // 2, (height - self.size) // 2
        middle = scaled.to_ndarray()[top : top + self.size, left : left + self.size]
        return np.rot90(middle, picture.rotation // 90)


def sound(audio: Track, rate: int, name: str) -> np.ndarray:
    """`(S,)` float32: the mean of all channels, at `rate`."""
    from av import AudioResampler

    # The library's own way to one channel would make loud sound louder than full scale.
    planar, parts, found = AudioResampler("fltp"), [], rate
    for frame in decoded(audio, name):
        found = frame.sample_rate
        parts += [part.to_ndarray().mean(0) for part in planar.resample(frame)]
    parts += [part.to_ndarray().mean(0) for part in planar.resample(None)] if parts else []
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    try:
        check_samples(samples)
    except AudioError as error:
        raise BadSample(name, error.reason, error.detail) from None
    return resample(samples, found, rate)
