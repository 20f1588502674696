"""Headers of uncompressed audio: RIFF/WAVE (also RF64 and RIFX) and headerless raw.

libsndfile returns what is there of a truncated file and says nothing, so sizes are checked here.
Source of the layout: Microsoft's "Multimedia Programming Interface and Data Specifications" and EBU
Tech 3306 (RF64).
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass

import numpy as np


class AudioError(Exception):
    """Audio that cannot be used; the reader that knows the utterance turns it into a BadSample.

    Args:
        reason: short and countable, such as "truncated audio".
        detail: what exactly is wrong and how to mend it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Pcm:
    """Where the samples of an uncompressed file lie and what they look like.

    Attributes:
        encoding: a key of `ENCODINGS`.
        rate: Hz.
        channels: interleaved channels.
        start: byte where the samples begin.
        size: bytes of samples, a whole number of sample frames.
    """

    encoding: str
    rate: int
    channels: int
    start: int = 0
    size: int = 0

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample frame (all channels)."""
        return ENCODINGS[self.encoding][0] * self.channels

    @property
    def bits(self) -> int:
        """Bits of a linear integer sample; 0 for float, mu-law and A-law."""
        return 8 * ENCODINGS[self.encoding][0] if self.encoding[0] in "su" else 0


# name -> (bytes a sample, libsndfile's subtype, byte order)
ENCODINGS = {
    "u8": (1, "PCM_U8", "LITTLE"),
    "s8": (1, "PCM_S8", "LITTLE"),
    "s16le": (2, "PCM_16", "LITTLE"),
    "s16be": (2, "PCM_16", "BIG"),
    "s24le": (3, "PCM_24", "LITTLE"),
    "s24be": (3, "PCM_24", "BIG"),
    "s32le": (4, "PCM_32", "LITTLE"),
    "s32be": (4, "PCM_32", "BIG"),
    "f32le": (4, "FLOAT", "LITTLE"),
    "f32be": (4, "FLOAT", "BIG"),
    "f64le": (8, "DOUBLE", "LITTLE"),
    "f64be": (8, "DOUBLE", "BIG"),
    "mulaw": (1, "ULAW", "LITTLE"),
    "alaw": (1, "ALAW", "LITTLE"),
}

MAX_RATE, MAX_CHANNELS = 10_000_000, 1024  # beyond these a header is damaged

RAW_FORMAT = re.compile(r"([a-z0-9]+),(\d+),(\d+)")
# Sizes that writers put down when the length is not known yet (sox, ffmpeg and others, to a pipe).
UNKNOWN_SIZES = {0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000}
WAVE_ENCODINGS = {
    1: {1: "u8", 2: "s16", 3: "s24", 4: "s32"},
    3: {4: "f32", 8: "f64"},
    6: {1: "alaw"},
    7: {1: "mulaw"},
}
EXTENSIBLE = 0xFFFE


def parse_raw_format(text: str) -> Pcm:
    """Reads `encoding,rate,channels`, for example `s16le,16000,1`.

    Raises:
        ValueError: not of that form, an unknown encoding, or a rate or channel count of zero.
    """
    match = RAW_FORMAT.fullmatch(text)
    if match is None or match[1] not in ENCODINGS:
        raise ValueError(
            f"raw format '{text}': expected encoding,rate,channels such as s16le,16000,1; "
            f"encodings: {', '.join(ENCODINGS)}"
        )
    rate, channels = int(match[2]), int(match[3])
    if not (1 <= rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
        raise ValueError(
            f"raw format '{text}': the rate and the number of channels must not be 0, nor absurd"
        )
    return Pcm(match[1], rate, channels)


def locate_raw(data: bytes, layout: Pcm) -> Pcm:
    """The whole of a headerless file; AudioError when it ends within a sample."""
    rest = len(data) % layout.frame_bytes
    if rest:
        raise AudioError(
            "truncated audio",
            f"{len(data)} bytes are no whole number of {layout.frame_bytes}-byte sample frames; "
            "check the declared raw format or copy the file again",
        )
    return Pcm(layout.encoding, layout.rate, layout.channels, 0, len(data))


def locate_wav(data: bytes) -> Pcm:
    """Finds the samples of a RIFF, RF64 or RIFX file, trusting its size only as far as the file goes.

    A data size of 0 or "unknown", as written to pipes, means up to the end of the file.

    Raises:
        AudioError: truncated, corrupt, or an encoding that is not PCM, float, mu-law or A-law.
    """
    order = ">" if data[:4] == b"RIFX" else "<"
    if data[8:12] != b"WAVE":
        raise AudioError(
            "corrupt audio", f"a {data[:4].decode()} file that is no WAVE file; convert it with sox or ffmpeg"
        )
    riff_size = struct.unpack(f"{order}I", data[4:8])[0]
    position, layout, long_size = 12, None, None
    while position + 8 <= len(data):
        name, size = struct.unpack(f"{order}4sI", data[position : position + 8])
        body = position + 8
        if name == b"ds64":
            long_size = int.from_bytes(data[body + 8 : body + 16], "little")
        elif name == b"fmt ":
            layout = _wave_format(data[body : body + size], size, order)
        elif name == b"data":
            if layout is None:
                raise AudioError(
                    "corrupt audio", "a data chunk before any fmt chunk; write the file again with sox"
                )
            honest_end = riff_size + 8 == len(data)
            return _data_chunk(layout, body, len(data), size, long_size, honest_end)
        position = body + size + size % 2
    raise AudioError("truncated audio", f"no data chunk in {len(data)} bytes; copy the file again")


def _wave_format(fields: bytes, size: int, order: str) -> Pcm:
    if len(fields) < 16 or len(fields) < size:
        raise AudioError("truncated audio", "the file ends within its fmt chunk; copy it again")
    tag, channels, rate, _, align, bits = struct.unpack(f"{order}HHIIHH", fields[:16])
    if tag == EXTENSIBLE and len(fields) >= 26:
        tag = struct.unpack(f"{order}H", fields[24:26])[0]
    if not (1 <= channels <= MAX_CHANNELS and 1 <= rate <= MAX_RATE and align and align % channels == 0):
        raise AudioError(
            "corrupt audio", f"fmt chunk with {channels} channels, {rate} Hz, {align} bytes a frame"
        )
    encoding = WAVE_ENCODINGS.get(tag, {}).get(align // channels)
    if encoding is None:
        raise AudioError(
            "unsupported encoding",
            f"WAVE format tag {tag:#x} with {bits} bits; PCM, float, mu-law and A-law are read; "
            "convert with: sox in.wav -e signed -b 16 out.wav",
        )
    if encoding not in ENCODINGS:
        encoding += "be" if order == ">" else "le"
    return Pcm(encoding, rate, channels)


def _data_chunk(layout: Pcm, start: int, end: int, size: int, long_size: int | None, honest_end: bool) -> Pcm:
    available = end - start
    if size == 0xFFFFFFFF and long_size is not None:
        size = long_size
    elif size in UNKNOWN_SIZES or (size == 0 and not honest_end):
        size = available - available % layout.frame_bytes
    if size > available:
        raise AudioError(
            "truncated audio",
            f"the header promises {size // layout.frame_bytes} samples, the file holds "
            f"{available // layout.frame_bytes}; copy or record it again",
        )
    if size % layout.frame_bytes:
        raise AudioError(
            "corrupt audio", f"{size} bytes of data are no whole number of {layout.frame_bytes}-byte frames"
        )
    return Pcm(layout.encoding, layout.rate, layout.channels, start, size)


def decode_pcm(data: bytes, layout: Pcm) -> np.ndarray:
    """Samples `(S, C)` float32 in [-1, 1] (float files as they are)."""
    piece = memoryview(data)[layout.start : layout.start + layout.size]
    if layout.encoding == "s16le":
        samples = np.frombuffer(piece, "<i2").astype(np.float32)
        samples *= np.float32(1 / 32768)
        return samples.reshape(-1, layout.channels)
    if not layout.size:
        return np.zeros((0, layout.channels), np.float32)
    import soundfile

    _, subtype, order = ENCODINGS[layout.encoding]
    samples, _ = soundfile.read(
        io.BytesIO(piece), dtype="float32", always_2d=True, format="RAW", subtype=subtype, endian=order,
        samplerate=layout.rate, channels=layout.channels,
    )  # fmt: skip
    return samples
