"""Clips made on the spot with PyAV: predictable pictures and tones, in any container and codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from factories import write_table

LOSSLESS = {"codec": "ffv1", "pixels": "bgr0"}  # for .mkv
LAYOUTS = {1: "mono", 2: "stereo"}


def grey(number: int, height: int, width: int) -> np.ndarray:
    """A picture of one shade that tells its number up to 79, then again: codecs change a shade by 1."""
    return np.full((height, width, 3), 8 + 3 * (number % 80), np.uint8)


def noise(number: int, height: int, width: int) -> np.ndarray:
    """A picture that differs from all others, with coarse blocks that codecs keep."""
    random = np.random.default_rng(number)
    blocks = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width]


def make_clip(
    path: str | Path,
    seconds: float = 2.0,
    rate: float | Fraction = 25,
    size: tuple[int, int] = (48, 64),
    picture: Callable[[int, int, int], np.ndarray] = grey,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    sound: float | None = None,
    sound_rate: int = 16000,
    sound_codec: str = "pcm_s16le",
    channels: int = 1,
    times: Sequence[int] | None = None,
    rotation: float = 0,
    video: bool = True,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Writes a clip.

    Args:
        path: the file; its suffix chooses the container.
        seconds: of video.
        rate: pictures a second.
        size: height and width.
        picture: number, height and width to `(H, W, 3)` uint8.
        codec: of the video.
        pixels: its pixel format.
        sound: seconds of a tone of 440 Hz, louder to its end; None for a clip without sound.
        sound_rate: samples a second.
        sound_codec: of the sound.
        channels: 1 or 2, all with the same samples.
        times: milliseconds at which pictures are seen, instead of an even rate.
        rotation: degrees by which players turn the pictures.
        video: False leaves the video out.
        options: of the video's encoder, such as {"bf": "2", "g": "12"}.
        container: options of the container.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as output:
        streams = []
        if video:
            streams.append(_video_stream(output, codec, rate, size, pixels, options or {}))
            if rotation:
                streams[0].set_display_rotation(rotation)
            if times is not None:
                streams[0].codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            streams.append(output.add_stream(sound_codec, rate=sound_rate, layout=LAYOUTS[channels]))
        if video:
            _write_video(output, streams[0], seconds, rate, size, picture, times)
        if sound is not None:
            _write_sound(output, streams[-1], sound, sound_rate, channels)
    return path


def _video_stream(output, codec, rate, size, pixels, options):
    stream = output.add_stream(codec, rate=Fraction(rate).limit_denominator(100000))
    stream.height, stream.width = size
    stream.pix_fmt, stream.options = pixels, options
    return stream


def _write_video(output, stream, seconds, rate, size, picture, times):
    count = round(seconds * rate) if times is None else len(times)
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
        frame.pts = number if times is None else times[number]
        frame.time_base = (
            Fraction(1, 1000) if times is not None else 1 / Fraction(rate).limit_denominator(100000)
        )
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def tone(seconds: float, rate: int) -> np.ndarray:
    """`(S,)` float32: 440 Hz, louder to its end."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * (time / max(seconds, 1e-9)) * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def _write_sound(output, stream, seconds, rate, channels):
    samples = np.rint(tone(seconds, rate) * 32767).astype(np.int16)
    for start in range(0, len(samples), 1024):
        part = samples[None, start : start + 1024].repeat(channels, 0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "s16p", LAYOUTS[channels])
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def clip_dir(path: Path, clips: dict[str, Path | str], wav: dict[str, str] | None = None) -> Path:
    """Writes a data directory with video.scp, every utterance a speaker; `wav` makes a wav.scp too."""
    write_table(path / "video.scp", {name: str(clip) for name, clip in clips.items()})
    names = sorted({*clips, *(wav or {})})
    for table in ("utt2spk", "spk2utt"):
        write_table(path / table, {name: name for name in names})
    if wav is not None:
        write_table(path / "wav.scp", wav)
    return path
