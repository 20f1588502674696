"""Audio in: any format to mono float32 at the wanted rate, with lengths from decoding.

An entry (second column of wav.scp) is one of
    path                      WAV, FLAC, MP3, Ogg (Vorbis, Opus) or NIST SPHERE, told apart by content
    path#s16le,16000,1        headerless samples: encoding, rate, channels
    path.ark:1234             an utterance in an archive
    sox in.wav -t wav - |     a pipe, only where pipes are allowed (see pipes.py)
Nothing here trusts a header's length: what was decoded is compared with what the file promises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from speechkit.data import archive
from speechkit.data.compressed import decode_flac, decode_mp3, decode_ogg
from speechkit.data.containers import (
    RAW_FORMAT,
    AudioError,
    Pcm,
    decode_pcm,
    locate_raw,
    locate_wav,
    parse_raw_format,
)
from speechkit.data.sphere import MAGIC, locate_sphere
from speechkit.errors import BadSample

# Kaldi's extract-segments lets a segment overshoot its recording by this much and cuts it.
MAX_OVERSHOOT = 0.5
# Float audio beyond this is surely not in [-1, 1] (16-bit values stored as float, most often).
MAX_PEAK = 16.0
RAW_SUFFIXES = (".raw", ".pcm")


@dataclass(frozen=True)
class Recording:
    """A decoded recording.

    Attributes:
        samples: `(S, C)` float32 in [-1, 1].
        rate: Hz.
        format: "wav", "flac", "mp3", "ogg", "sphere" or "raw".
        bits: bits a sample of a lossless format, 0 otherwise (float, mu-law, A-law, lossy).
    """

    samples: np.ndarray
    rate: int
    format: str
    bits: int = 0


@dataclass(frozen=True)
class AudioInfo:
    """What decoding told about an entry; `samples` counts per channel."""

    rate: int
    channels: int
    samples: int
    format: str


def _pcm(locate: Callable[[bytes], Pcm]) -> Callable[[bytes], tuple[np.ndarray, int, int]]:
    def decode(data: bytes) -> tuple[np.ndarray, int, int]:
        layout = locate(data)
        return decode_pcm(data, layout), layout.rate, layout.bits

    return decode


# format -> decoder of a whole file into samples (S, C), rate, bits
DECODERS: dict[str, Callable[[bytes], tuple[np.ndarray, int, int]]] = {
    "wav": _pcm(locate_wav),
    "flac": decode_flac,
    "mp3": decode_mp3,
    "ogg": decode_ogg,
    "sphere": _pcm(locate_sphere),
}


def sniff(data: bytes) -> str | None:
    """The format of a file by its first bytes, or None."""
    if data[:4] in (b"RIFF", b"RF64", b"RIFX"):
        return "wav"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:4] == b"OggS":
        return "ogg"
    if data[:8] == MAGIC:
        return "sphere"
    if data[:3] == b"ID3" or (data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE6 == 0xE2):
        return "mp3"
    return None


def decode(data: bytes, raw_format: Pcm | None = None) -> Recording:
    """Decodes a whole file held in memory.

    Args:
        data: its bytes.
        raw_format: how to read headerless samples; None when the file has a header.

    Raises:
        AudioError: empty, truncated, damaged, of an unknown format, or with samples that are NaN,
            infinite or far outside [-1, 1].
    """
    if not data:
        raise AudioError("empty file", "0 bytes; copy the file again or remove the entry")
    if raw_format is not None:
        form = "raw"
        samples, rate, bits = _pcm(lambda whole: locate_raw(whole, raw_format))(data)
    else:
        form = sniff(data)
        if form is None:
            raise AudioError(
                "unknown format",
                f"begins with {data[:4]!r}; WAV, FLAC, MP3, Ogg and SPHERE are read. Headerless audio needs "
                "--raw-format s16le,16000,1 or path#s16le,16000,1; convert anything else with ffmpeg",
            )
        samples, rate, bits = DECODERS[form](data)
    check_samples(samples)
    return Recording(samples, rate, form, bits)


def check_samples(samples: np.ndarray) -> None:
    """Raises AudioError for no samples at all, NaN or infinite ones, or a peak far beyond 1."""
    if not samples.size:
        raise AudioError("zero-length audio", "no samples; record it again or remove the entry")
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max pass NaN on
        bad = np.flatnonzero(
            ~np.isfinite(samples).all(axis=-1) if samples.ndim == 2 else ~np.isfinite(samples)
        )
        raise AudioError(
            "non-finite samples",
            f"{len(bad)} samples are NaN or infinite, the first at {bad[0]}; write it again",
        )
    if max(-low, high) > MAX_PEAK:
        raise AudioError(
            "samples out of range",
            f"the peak is {max(-low, high):g} where [-1, 1] is meant; divide by 32768 if in 16-bit units",
        )


def is_silent(samples: np.ndarray) -> bool:
    """True when every sample is zero: decodable, but worth a warning."""
    return not samples.any()


def _split_entry(entry: str, raw_format: str | None) -> tuple[str, Pcm | None]:
    """Path and raw layout of an entry; `raw_format` applies to *.raw and *.pcm without one of their own."""
    path, mark, declared = entry.rpartition("#")
    try:
        if mark and RAW_FORMAT.fullmatch(declared):
            return path, parse_raw_format(declared)
        if raw_format is not None and entry.lower().endswith(RAW_SUFFIXES):
            return entry, parse_raw_format(raw_format)
    except ValueError as error:
        raise AudioError("bad raw format", str(error)) from None
    return entry, None


def _file_bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise AudioError("missing file", f"{path}: no such file; mend wav.scp or copy it there") from None
    except IsADirectoryError:
        raise AudioError("missing file", f"{path} is a folder; name the file") from None
    except ValueError:
        raise AudioError("missing file", f"{path!r} is no file name") from None
    except OSError as error:
        raise AudioError("unreadable file", f"{path}: {error.strerror}") from None


def _load(entry: str, raw_format: str | None, allow_pipes: bool) -> Recording:
    if entry.rstrip().endswith("|"):
        if not allow_pipes:
            raise AudioError(
                "pipe refused",
                f"'{entry}' is a command; speechkit format --allow-pipes true runs such entries",
            )
        from speechkit.data.pipes import read_pipe

        return decode(read_pipe(entry))
    path, layout = _split_entry(entry, raw_format)
    place = archive.split_offset(path)
    data = archive.read_audio_bytes(*place) if place else _file_bytes(path)
    try:
        return decode(data, layout)
    except AudioError as error:
        raise AudioError(error.reason, f"{entry}: {error.detail}") from None


def load_recording(
    entry: str, *, utterance: str = "", raw_format: str | None = None, allow_pipes: bool = False
) -> Recording:
    """Decodes a wav.scp entry with all its channels at its own rate.

    Args:
        entry: second column of wav.scp; see the top of this file.
        utterance: the id named in errors (the entry itself when empty).
        raw_format: `encoding,rate,channels` of *.raw and *.pcm files.
        allow_pipes: run `sox ... |` entries, by the rules of pipes.py.

    Raises:
        BadSample: the entry cannot be read; its reason and detail say why and how to mend it.
    """
    try:
        return _load(entry, raw_format, allow_pipes)
    except AudioError as error:
        raise BadSample(utterance or entry, error.reason, error.detail) from None


def cut(recording: Recording, start: float | None, end: float | None) -> Recording:
    """The part between two times.

    Args:
        recording: the whole.
        start: seconds; None is the beginning.
        end: seconds; None or -1 is the end. Up to half a second too late is cut, as Kaldi does.

    Raises:
        AudioError: the segment is empty or lies outside of the recording.
    """
    if start is None and end is None:
        return recording
    total, rate = len(recording.samples), recording.rate
    first = round((start or 0.0) * rate)
    last = total if end is None or end == -1 else round(end * rate)
    if last > total + MAX_OVERSHOOT * rate or not 0 <= first < min(last, total):
        raise AudioError(
            "bad segment",
            f"{start} to {end} s is empty or outside of the {total / rate:.3f} s decoded; mend segments",
        )
    return replace(recording, samples=recording.samples[first : min(last, total)])


def pick_channel(samples: np.ndarray, channel: int | None) -> np.ndarray:
    """One channel, `(S, C)` to `(S,)`; AudioError when it is not there, or several and none chosen."""
    count = samples.shape[1]
    if channel is None:
        if count > 1:
            raise AudioError(
                "several channels",
                f"{count} channels where one is meant; choose one with --channel 0 (counted from 0)",
            )
        return samples[:, 0]
    if not 0 <= channel < count:
        raise AudioError(
            "no such channel", f"--channel {channel}, but the audio has {count} (counted from 0)"
        )
    return np.ascontiguousarray(samples[:, channel])


def resample(samples: np.ndarray, old: float, new: float) -> np.ndarray:
    """Resamples `(S,)` float32 by soxr's HQ polyphase filter; `resampled_length` samples come out."""
    if old == new:
        return samples
    import soxr

    return soxr.resample(np.ascontiguousarray(samples), old, new, quality="HQ")


def resampled_length(samples: int, old: int, new: int) -> int:
    """How many samples `resample` gives: samples * new / old, halves rounded up."""
    return (2 * samples * new + old) // (2 * old)


def to_mono(
    recording: Recording,
    *,
    start: float | None = None,
    end: float | None = None,
    channel: int | None = None,
    rate: int | None = 16000,
    fixed_rate: bool = False,
    utterance: str = "",
) -> np.ndarray:
    """Cuts a segment, picks a channel and resamples; arguments and result as for `read_audio`."""
    try:
        if fixed_rate and rate is not None and recording.rate != rate:
            raise AudioError(
                "wrong sample rate",
                f"{recording.rate} Hz where {rate} Hz is required; resample it with speechkit format",
            )
        part = cut(recording, start, end)
        samples = pick_channel(part.samples, channel)
        if rate is not None and rate != part.rate:
            samples = resample(samples, part.rate, rate)
        if not len(samples):
            raise AudioError(
                "zero-length audio", f"{len(part.samples)} samples at {part.rate} Hz leave none at {rate} Hz"
            )
        return samples
    except AudioError as error:
        raise BadSample(utterance, error.reason, error.detail) from None


def read_audio(
    entry: str,
    *,
    start: float | None = None,
    end: float | None = None,
    channel: int | None = None,
    rate: int | None = 16000,
    fixed_rate: bool = False,
    utterance: str = "",
    raw_format: str | None = None,
    allow_pipes: bool = False,
) -> np.ndarray:
    """Decodes an entry (or a segment of it) to mono.

    Args:
        entry: second column of wav.scp; see the top of this file.
        start: of the segment in seconds, or None.
        end: of the segment in seconds; None or -1 for the end.
        channel: which of several channels, from 0; None insists on mono.
        rate: Hz wanted; None keeps the file's own.
        fixed_rate: refuse other rates instead of resampling.
        utterance: the id named in errors (the entry itself when empty).
        raw_format: `encoding,rate,channels` of *.raw and *.pcm files.
        allow_pipes: run `sox ... |` entries, by the rules of pipes.py.

    Returns:
        `(S,)` float32 in [-1, 1].

    Raises:
        BadSample: anything wrong with it; the reason is short and countable.
    """
    name = utterance or entry
    recording = load_recording(entry, utterance=name, raw_format=raw_format, allow_pipes=allow_pipes)
    return to_mono(
        recording, start=start, end=end, channel=channel, rate=rate, fixed_rate=fixed_rate, utterance=name
    )


def audio_info(
    entry: str, *, utterance: str = "", raw_format: str | None = None, allow_pipes: bool = False
) -> AudioInfo:
    """Rate, channels, format and true number of samples, by decoding; raises BadSample as `read_audio`."""
    recording = load_recording(entry, utterance=utterance, raw_format=raw_format, allow_pipes=allow_pipes)
    samples, channels = recording.samples.shape
    return AudioInfo(recording.rate, channels, samples, recording.format)


def encode(samples: np.ndarray, rate: int, form: str = "flac") -> bytes:
    """Mono samples `(S,)` in [-1, 1] as a 16-bit FLAC or WAV file in memory, clipped at full scale."""
    import io

    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, to_int16(samples), rate, format=form.upper(), subtype="PCM_16")
    return buffer.getvalue()


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Rounds [-1, 1] to 16-bit units; 16-bit input comes back exactly."""
    return np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
