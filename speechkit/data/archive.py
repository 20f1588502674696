"""The only reader and writer of Kaldi's ark/scp.

kaldiio unpickles `PKL` entries and runs `command |` entries, so neither its scp nor its ark reader is
ever called: an entry is a plain `path:offset`, the header at that place is parsed and its size compared
with the file before anything is read. Known contents: float and double matrices and vectors, int32
vectors, compressed matrices (CM, CM2, CM3), WAV files, and kaldiio's length-prefixed `AUDIO` (FLAC or
WAV inside). Everything else is refused.
Source of the layout: Kaldi's matrix/kaldi-matrix.cc, matrix/compressed-matrix.h and base/io-funcs.h.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType

import numpy as np

from speechkit.data.containers import AudioError
from speechkit.errors import InputError
from speechkit.files import disk_full

OFFSET = re.compile(r"(.+):(\d+)")
HEADER_BYTES = 64
OPEN_FILES = 32


def split_offset(entry: str) -> tuple[str, int] | None:
    """`path:offset` in two, or None for an entry without an offset (a file of such a name comes first)."""
    match = OFFSET.fullmatch(entry)
    if match is None or os.path.exists(entry):
        return None
    return match[1], int(match[2])


class _Files:
    """A few open archives, read by position: safe for threads and for forked workers, which share offsets."""

    def __init__(self) -> None:
        self.opened: OrderedDict[tuple, io.FileIO] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, path: str) -> tuple[io.FileIO, int]:
        """The file and its size; a file replaced on disk is opened anew."""
        stat = os.stat(path)
        key = (path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self.lock:
            file = self.opened.pop(key, None) or open(path, "rb", buffering=0)
            self.opened[key] = file
            while len(self.opened) > OPEN_FILES:
                self.opened.popitem(last=False)  # closed when its last reader lets go
        return file, stat.st_size


_files = _Files()


def _refuse(path: str, offset: int, why: str) -> InputError:
    return InputError(f"{path}:{offset}: {why}")


def _open(path: str, offset: int) -> tuple[io.FileIO, int, bytes]:
    try:
        file, size = _files.get(path)
        head = os.pread(file.fileno(), HEADER_BYTES, offset)
    except FileNotFoundError:
        raise InputError(f"{path}: no such archive; mend the scp file or make the archive again") from None
    except (OSError, ValueError, OverflowError) as error:
        raise _refuse(path, offset, f"cannot be read: {getattr(error, 'strerror', error)}") from None
    if not head:
        raise _refuse(path, offset, f"beyond the end of the archive ({size} bytes); make the archive again")
    return file, size, head


def _piece(file: io.FileIO, size: int, path: str, offset: int, skip: int, length: int) -> bytes:
    """So many bytes of the entry at `offset`, after its first `skip`."""
    at = offset + skip
    if at + length > size:
        raise _refuse(
            path,
            offset,
            f"{skip + length} bytes are needed, the archive holds {size - offset} (truncated); make it again",
        )
    data = os.pread(file.fileno(), length, at)
    while len(data) < length:  # a single read returns at most 2 GiB
        more = os.pread(file.fileno(), length - len(data), at + len(data))
        if not more:
            raise _refuse(path, offset, "the archive shrank while it was read")
        data += more
    return data


# token after "\0B" -> (dtype, dimensions)
PLAIN = {b"FM": ("<f4", 2), b"DM": ("<f8", 2), b"FV": ("<f4", 1), b"DV": ("<f8", 1)}
COMPRESSED = {b"CM": 1, b"CM2": 2, b"CM3": 1}  # bytes a value


def read_array(entry: str) -> np.ndarray:
    """Reads one matrix or vector.

    Args:
        entry: `path:offset` as in feats.scp.

    Returns:
        `(T, F)` or `(N,)` in the stored type (compressed matrices as float32), writable.

    Raises:
        InputError: naming the archive and offset: not such an entry, missing, truncated, or of a kind
            that is not read (text, pickles, commands, ranges).
    """
    place = split_offset(entry)
    if place is None:
        raise InputError(
            f"archive entry '{entry}': expected path:offset (no commands, ranges or whole archives)"
        )
    path, offset = place
    file, size, head = _open(path, offset)
    if head[:2] != b"\0B":
        raise _refuse(
            path, offset, f"no binary matrix or vector (begins with {head[:5]!r}); copy-feats writes one"
        )
    if head[2:3] == b"\4":
        return _int_vector(file, size, path, offset, head)
    token = head[2:].split(b" ", 1)[0]
    start = 2 + len(token) + 1
    if token in PLAIN:
        dtype, dimensions = PLAIN[token]
        shape = _shape(head[start:], dimensions, path, offset)
        count = math.prod(shape)
        start += 5 * dimensions
        data = _piece(file, size, path, offset, start, count * np.dtype(dtype).itemsize)
        return np.frombuffer(data, dtype).reshape(shape).copy()
    if token in COMPRESSED:
        return _compressed(file, size, path, offset, head[start : start + 16], token)
    raise _refuse(
        path,
        offset,
        f"unknown kind of entry {token[:8]!r}; known: {', '.join(k.decode() for k in (*PLAIN, *COMPRESSED))}",
    )


def _shape(header: bytes, dimensions: int, path: str, offset: int) -> tuple[int, ...]:
    if len(header) < 5 * dimensions:
        raise _refuse(path, offset, "the archive ends within the entry's header (truncated); make it again")
    shape = []
    for index in range(dimensions):
        width, value = struct.unpack("<bi", header[5 * index : 5 * index + 5])
        if width != 4 or value < 0:
            raise _refuse(path, offset, "a damaged header; make the archive again")
        shape.append(value)
    return tuple(shape)


def _int_vector(file: io.FileIO, size: int, path: str, offset: int, head: bytes) -> np.ndarray:
    (count,) = _shape(head[2:], 1, path, offset)
    data = _piece(file, size, path, offset, 7, 5 * count)
    items = np.frombuffer(data, np.dtype([("width", "i1"), ("value", "<i4")]))
    if (items["width"] != 4).any():
        raise _refuse(path, offset, "a damaged integer vector; make the archive again")
    return items["value"].copy()


def _compressed(
    file: io.FileIO, size: int, path: str, offset: int, header: bytes, token: bytes
) -> np.ndarray:
    if len(header) < 16:
        raise _refuse(path, offset, "the archive ends within the entry's header (truncated); make it again")
    rows, columns = struct.unpack("<ii", header[8:])
    if rows < 0 or columns < 0:
        raise _refuse(path, offset, "a damaged header; make the archive again")
    length = 3 + len(token) + 16 + rows * columns * COMPRESSED[token] + (8 * columns if token == b"CM" else 0)
    data = _piece(file, size, path, offset, 0, length)
    from kaldiio.matio import read_matrix_or_vector  # reads these bytes and nothing else

    return np.ascontiguousarray(read_matrix_or_vector(io.BytesIO(data)), dtype=np.float32)


def read_audio_bytes(path: str, offset: int) -> bytes:
    """The audio file stored in an archive at an offset.

    Raises:
        AudioError: missing, truncated, or no WAV or length-prefixed audio there.
    """
    try:
        file, size, head = _open(path, offset)
        if head[:4] == b"RIFF":
            length = struct.unpack("<I", head[4:8])[0] + 8 if len(head) >= 8 else 8
            return _piece(file, size, path, offset, 0, length)
        if head[:5] == b"AUDIO":
            width = head[5] if len(head) > 5 else 0
            if not 1 <= width <= 8:
                raise _refuse(path, offset, "a damaged length; make the archive again")
            length = int.from_bytes(head[6 : 6 + width], "little")
            return _piece(file, size, path, offset, 6 + width, length)
        raise _refuse(
            path,
            offset,
            f"no audio in the archive (begins with {head[:5]!r}); WAV or length-prefixed FLAC is read",
        )
    except InputError as error:
        reason = (
            "truncated audio" if "truncated" in str(error) or "beyond" in str(error) else "bad archive entry"
        )
        raise AudioError("missing file" if "no such archive" in str(error) else reason, str(error)) from None


def _encode(array: np.ndarray, compression: int | None) -> bytes:
    array = np.asarray(array)
    if array.dtype == np.int32 and array.ndim == 1:
        items = np.empty(len(array), np.dtype([("width", "i1"), ("value", "<i4")]))
        items["width"], items["value"] = 4, array
        return b"\0B\4" + struct.pack("<i", len(array)) + items.tobytes()
    kinds = {dtype: token for token, (dtype, ndim) in PLAIN.items() if ndim == array.ndim}
    token = kinds.get(array.dtype.newbyteorder("<").str)
    if token is None:
        raise TypeError(
            f"archives hold float matrices and vectors and int32 vectors, not {array.dtype} {array.shape}"
        )
    if compression is not None and array.ndim == 2:
        from kaldiio import save_ark

        buffer = io.BytesIO()
        save_ark(buffer, {"x": array}, compression_method=compression)
        return buffer.getvalue()[2:]  # without its "x " key
    header = b"".join(b"\4" + struct.pack("<i", size) for size in array.shape)
    return b"\0B" + token + b" " + header + np.ascontiguousarray(array, PLAIN[token][0]).tobytes()


class ArkWriter:
    """Writes <name>.ark and <name>.scp; both appear under their names only when the block succeeds.

    Args:
        folder: where to write; made when missing.
        name: base name of the two files.
        shown: the folder to write into the scp, when the files will be moved there later.
        compression: Kaldi's compression method 1-7 for matrices (2 is for speech features), or None.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        *,
        shown: str | Path | None = None,
        compression: int | None = None,
    ) -> None:
        if compression is not None and compression not in range(1, 8):
            raise ValueError(f"compression={compression} must be in [1, 7] or None")
        self.folder, self.compression = Path(folder), compression
        self.ark, self.scp = self.folder / f"{name}.ark", self.folder / f"{name}.scp"
        self.shown = Path(shown if shown is not None else folder) / self.ark.name
        self.offsets: dict[str, int] = {}

    def _temporary(self) -> Path:
        return self.folder / f".{self.ark.name}.{os.getpid()}.tmp"

    def __enter__(self) -> ArkWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = open(self._temporary(), "wb")
        return self

    def _write(self, key: str, data: bytes) -> None:
        if not key or key in self.offsets or any(c.isspace() for c in key):
            raise InputError(f"{self.ark}: key '{key}' is empty, holds white space or comes twice")
        try:
            self.file.write(f"{key} ".encode())
            self.offsets[key] = self.file.tell()
            self.file.write(data)
        except OSError as error:
            raise disk_full(error, self.ark) or error from error

    def write(self, key: str, array: np.ndarray) -> str:
        """Appends a matrix or vector; returns its `path:offset` entry."""
        self._write(key, _encode(array, self.compression))
        return f"{self.shown}:{self.offsets[key]}"

    def write_audio(self, key: str, data: bytes) -> str:
        """Appends a complete FLAC or WAV file as kaldiio's length-prefixed AUDIO; returns its entry."""
        width = (len(data).bit_length() + 7) // 8
        self._write(key, b"AUDIO" + bytes([width]) + len(data).to_bytes(width, "little") + data)
        return f"{self.shown}:{self.offsets[key]}"

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from speechkit.files import write_text

        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
            self.file.close()
            if kind is None:
                os.replace(self._temporary(), self.ark)
                write_text(
                    self.scp,
                    "".join(f"{key} {self.shown}:{at}\n" for key, at in sorted(self.offsets.items())),
                )
        except OSError as problem:
            raise disk_full(problem, self.ark) or problem from problem
        finally:
            self._temporary().unlink(missing_ok=True)
