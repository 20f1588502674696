"""Decoding of FLAC, MP3 and Ogg (Vorbis, Opus), with what their own structure says about the length.

What a truncated file of each kind cannot hide:
- FLAC: the header's sample count and MD5 sum of the samples; both are missing in files written to a
  pipe, where only a cut within a frame is seen.
- Ogg: the end-of-stream flag and the sample count on the last page.
- MP3: an incomplete last frame, and the frame count of a Xing/Info/VBRI header; a file without such
  a header that is cut exactly between two frames looks like a shorter recording.
"""

from __future__ import annotations

import hashlib
import io
import struct

import numpy as np

from speechkit.data.containers import AudioError

COPY = "; copy or download the file again"


def _read(data: bytes, dtype: str) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        return soundfile.read(io.BytesIO(data), dtype=dtype, always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(error).rpartition(":")[2].strip().rstrip(".") or "the decoder gave up"
        raise AudioError(
            "corrupt audio", f"cannot be decoded ({reason}); it may be truncated{COPY}"
        ) from None
    except (MemoryError, ValueError):  # room is made for as many samples as the header claims
        raise AudioError("corrupt audio", f"the header claims more samples than memory holds{COPY}") from None


# ---- FLAC (RFC 9639)


def decode_flac(data: bytes) -> tuple[np.ndarray, int, int]:
    """Samples `(S, C)` float32, rate, and bits a sample; AudioError when truncated or damaged."""
    if len(data) < 42 or data[4] & 0x7F != 0:
        raise AudioError("truncated audio", f"a FLAC file without its STREAMINFO block{COPY}")
    packed = int.from_bytes(data[18:26], "big")
    bits, total, digest = (packed >> 36 & 31) + 1, packed & (1 << 36) - 1, data[26:42]
    if total == 0:
        total = _count_flac(data)
        data = data[:18] + (packed | total).to_bytes(8, "big") + data[26:]
    samples, rate = _read(data, "int16" if bits == 16 else "int32")
    if len(samples) != total:
        raise AudioError(
            "truncated audio", f"the header promises {total} samples, {len(samples)} were decoded{COPY}"
        )
    if any(digest) and digest != _flac_digest(samples, bits):
        raise AudioError("corrupt audio", f"the samples do not have the MD5 sum stored in the file{COPY}")
    scale = 1 / 32768 if bits == 16 else 1 / 2147483648
    return samples.astype(np.float32) * np.float32(scale), rate, bits


def _flac_digest(samples: np.ndarray, bits: int) -> bytes:
    """MD5 over little-endian interleaved samples of `bits` rounded up to bytes."""
    if bits != 16:
        samples = samples >> (32 - bits)
    width = (bits + 7) // 8
    if width == 3:
        packed = np.ascontiguousarray(samples.astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :3]
    else:
        packed = samples.astype({1: "i1", 2: "<i2", 4: "<i4"}[width], copy=False)
    return hashlib.md5(np.ascontiguousarray(packed), usedforsecurity=False).digest()


def _count_flac(data: bytes) -> int:
    """Samples per channel by the header of the last frame, for streams that do not know their length."""
    position = 4
    while position + 4 <= len(data):
        last, size = data[position] & 0x80, int.from_bytes(data[position + 1 : position + 4], "big")
        position += 4 + size
        if last:
            break
    first = data[position : position + 4]
    at = data.rfind(first[:2], position) if len(first) == 4 else -1
    while at >= position:
        # the same sampling rate, channels and sample size as in the first frame, and a good CRC-8
        if (
            data[at + 2 : at + 4]
            and data[at + 2] & 15 == first[2] & 15
            and data[at + 3 : at + 4] == first[3:4]
        ):
            end = _flac_frame_end(data[at : at + 24], int.from_bytes(data[8:10], "big"))
            if end is not None:
                return end
        at = data.rfind(first[:2], position, at + 1)
    raise AudioError("truncated audio", f"a FLAC stream without a complete frame{COPY}")


def _flac_frame_end(header: bytes, block_size: int) -> int | None:
    """The number of the sample after a frame, or None when these bytes are no frame header."""
    variable, code = header[1] & 1, header[2] >> 4
    extra = 0
    while extra < 7 and len(header) > 4 and header[4] >> (7 - extra) & 1:
        extra += 1
    length = max(extra, 1)  # bytes of the UTF-8-like coded number
    if len(header) < 4 + length + 3:
        return None
    number = header[4] & (0x7F >> extra)
    for byte in header[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    position = 4 + length
    if code == 1:
        size = 192
    elif 2 <= code <= 5:
        size = 576 << (code - 2)
    elif code == 6:
        size, position = header[position] + 1, position + 1
    elif code == 7:
        size, position = int.from_bytes(header[position : position + 2], "big") + 1, position + 2
    elif code >= 8:
        size = 256 << (code - 8)
    else:  # reserved
        return None
    position += {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if position >= len(header) or _crc8(header[:position]) != header[position]:
        return None
    return (number if variable else number * block_size) + size


def _crc8(data: bytes) -> int:
    """CRC with polynomial x^8 + x^2 + x + 1, as in FLAC frame headers."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


# ---- Ogg (RFC 3533), Vorbis I, Opus (RFC 7845)


def decode_ogg(data: bytes) -> tuple[np.ndarray, int, int]:
    """Samples `(S, C)` float32, rate, and 0; AudioError when truncated, damaged or chained."""
    granule, first = _last_granule(data)
    samples, rate = _read(data, "float32")
    expected = granule
    if first[:8] == b"OpusHead":
        skip = struct.unpack("<H", first[10:12])[0]
        expected = round((granule - skip) * rate / 48000)
    if len(samples) < expected - 1:
        raise AudioError(
            "truncated audio", f"the last page promises {expected} samples, {len(samples)} were decoded{COPY}"
        )
    return samples, rate, 0


def _last_granule(data: bytes) -> tuple[int, bytes]:
    """The end position stored on the last page, and the first packet's beginning."""
    position, granule, ended, first = 0, 0, False, b""
    while position + 27 <= len(data):
        if data[position : position + 4] != b"OggS":
            raise AudioError("corrupt audio", f"no Ogg page at byte {position}{COPY}")
        if ended:
            raise AudioError(
                "unsupported encoding", "several Ogg streams in one file; join them with sox or ffmpeg"
            )
        flags, page_granule = struct.unpack("<Bq", data[position + 5 : position + 14])
        table = data[position + 27 : position + 27 + data[position + 26]]
        body = position + 27 + data[position + 26]
        if position == 0:
            first = data[body : body + 64]
        position = body + sum(table)
        granule, ended = max(granule, page_granule), bool(flags & 4)
    if position != len(data) or not ended:
        raise AudioError("truncated audio", f"the file stops before the Ogg stream's last page{COPY}")
    return granule, first


# ---- MP3 (ISO 11172-3, 13818-3 layer III)

BITRATES = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, kbit/s
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
}
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def decode_mp3(data: bytes) -> tuple[np.ndarray, int, int]:
    """Samples `(S, C)` float32, rate, and 0; AudioError when truncated or damaged (as far as can be seen)."""
    frames, frame_samples, promised = _walk_mp3(data)
    if promised is not None and frames < promised:
        raise AudioError(
            "truncated audio", f"the header promises {promised} MP3 frames, the file holds {frames}{COPY}"
        )
    samples, rate = _read(data, "float32")
    # the encoder's delay and padding (under four frames) are cut away by the decoder
    if len(samples) < (frames - 4) * frame_samples:
        raise AudioError(
            "corrupt audio",
            f"{frames} MP3 frames gave only {len(samples)} samples of {frames * frame_samples}{COPY}",
        )
    return samples, rate, 0


def _walk_mp3(data: bytes) -> tuple[int, int, int | None]:
    """Counts the audio frames; also samples a frame and the Xing/Info/VBRI header's count, if any."""
    position, frames, frame_samples, promised = _skip_id3(data), 0, 1152, None
    while position + 4 <= len(data):
        if data[position : position + 3] == b"TAG" or data[position : position + 8] in (
            b"APETAGEX",
            b"LYRICSBE",
        ):
            break
        size, samples, side = _mp3_frame(data[position : position + 4])
        if size is None:
            if not any(data[position:]):
                break  # zero padding at the end
            raise AudioError("corrupt audio", f"no MP3 frame at byte {position}{COPY}")
        if position + size > len(data):
            raise AudioError("truncated audio", f"the file stops within MP3 frame {frames + 1}{COPY}")
        if frames == 0 and promised is None:
            promised = _mp3_count(data[position : position + size], side)
            frames -= promised is not None  # the header frame holds no audio
        frames, frame_samples, position = frames + 1, samples, position + size
    if frames <= 0 and promised is None:
        raise AudioError("truncated audio", f"no complete MP3 frame{COPY}")
    return frames, frame_samples, promised


def _skip_id3(data: bytes) -> int:
    position = 0
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        a, b, c, d = data[position + 6 : position + 10]
        position += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if data[position + 5] & 0x10 else 0)
    while position < len(data) and data[position] == 0:
        position += 1
    return position


def _mp3_frame(header: bytes) -> tuple[int | None, int, int]:
    """Bytes, samples per channel, and where a Xing header would stand; (None, 0, 0) for no frame."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if header[0] != 0xFF or header[1] < 0xE0 or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None, 0, 0
    samples = 1152 if version == 3 else 576
    kbits = BITRATES[3 if version == 3 else 2][bitrate]
    size = samples // 8 * kbits * 1000 // RATES[version][rate] + (header[2] >> 1 & 1)
    mono = header[3] >> 6 == 3
    side = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[(version == 3, mono)]
    return size, samples, 4 + side


def _mp3_count(frame: bytes, at: int) -> int | None:
    if frame[at : at + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(frame[at + 4 : at + 8], "big")
        return int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else None
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None
