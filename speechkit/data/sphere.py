"""NIST SPHERE headers (PCM, mu-law, A-law; shorten-compressed files are refused).

Source of the layout: NIST's SPHERE 2.6 documentation: an ASCII header of `name -type value` lines
whose second line holds its own size in bytes.
"""

from __future__ import annotations

from speechkit.data.containers import ENCODINGS, MAX_CHANNELS, MAX_RATE, AudioError, Pcm

MAGIC = b"NIST_1A\n"
TYPES = {"-i": int, "-r": float}


def read_header(data: bytes) -> tuple[dict[str, int | float | str], int]:
    """The header's fields, and its size in bytes.

    Raises:
        AudioError: the header is cut or not of SPHERE's form.
    """
    try:
        size = int(data[8:16])
        text = data[16:size].decode("ascii")
    except ValueError:
        raise AudioError(
            "corrupt audio", "a SPHERE header that cannot be read; copy the file again"
        ) from None
    if len(data) < size:
        raise AudioError(
            "truncated audio", f"the file ends within its {size}-byte SPHERE header; copy it again"
        )
    fields: dict[str, int | float | str] = {}
    for line in text.splitlines():
        if line.strip() == "end_head":
            return fields, size
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and not line.startswith(";"):
            name, kind, value = parts
            try:
                fields[name] = TYPES[kind](value) if kind in TYPES else value.strip()
            except ValueError:
                raise AudioError("corrupt audio", f"SPHERE field {name} is '{value}'") from None
    raise AudioError("corrupt audio", "a SPHERE header without end_head; copy the file again")


def locate_sphere(data: bytes) -> Pcm:
    """Finds the samples of a SPHERE file.

    Raises:
        AudioError: truncated, corrupt, or compressed with shorten.
    """
    fields, start = read_header(data)
    coding = str(fields.get("sample_coding", "pcm")).lower()
    if "shorten" in coding or "wavpack" in coding or "shortpack" in coding:
        raise AudioError(
            "unsupported encoding",
            f"SPHERE compressed as '{coding}'; convert with: sph2pipe -f wav in.sph out.wav",
        )
    width = _whole(fields, "sample_n_bytes", 1 if "law" in coding else 2)
    channels, rate = _whole(fields, "channel_count", 1), _whole(fields, "sample_rate", 0)
    if not (1 <= channels <= MAX_CHANNELS and 1 <= rate <= MAX_RATE):
        raise AudioError("corrupt audio", f"SPHERE header with {channels} channels and {rate} Hz")
    encoding = _encoding(coding, width, str(fields.get("sample_byte_format", "01")))
    frame, available = width * channels, len(data) - start
    count = _whole(fields, "sample_count", 0) or available // frame
    if count * frame > available:
        raise AudioError(
            "truncated audio",
            f"the header promises {count} samples, the file holds {available // frame}; copy it again",
        )
    return Pcm(encoding, rate, channels, start, count * frame)


def _whole(fields: dict[str, int | float | str], name: str, default: int) -> int:
    text = str(fields.get(name, default)).removesuffix(".0")  # some writers declare numbers as -r or -s1
    if not (text.isdecimal() and len(text) < 15):
        raise AudioError("corrupt audio", f"SPHERE field {name} is '{text}'; copy the file again")
    return int(text)


def _encoding(coding: str, width: int, byte_format: str) -> str:
    name = {"ulaw": "mulaw", "mu-law": "mulaw", "alaw": "alaw", "a-law": "alaw"}.get(coding)
    if name is None and coding == "pcm":
        # the places of the bytes from the least significant: "01" and "0123" are little-endian
        big = byte_format in ("10", "210", "3210")
        name = "s8" if width == 1 else f"s{8 * width}{'be' if big else 'le'}"
    if name not in ENCODINGS or ENCODINGS[name][0] != width:
        raise AudioError("unsupported encoding", f"SPHERE coding '{coding}' with {width} bytes a sample")
    return name
