"""Arrays of any shape one after the other in one file, each found by `path:offset`.

A record is a complete .npy file (its header is padded to 64 bytes) at an offset that is a multiple of 64, so
that it can be mapped into memory, and parts of it read, with numpy alone. Kaldi's archives know neither
bytes nor more than two dimensions.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO

import numpy as np

from speechkit.data.archive import split_offset
from speechkit.errors import InputError

ALIGNMENT = 64
KINDS = "uif"  # unsigned and signed whole numbers, floating point


class RecordWriter:
    """Appends arrays to an open file.

    Args:
        file: open for writing bytes, at its beginning.
        shown: the path that entries name.
    """

    def __init__(self, file: IO[bytes], shown: str | Path) -> None:
        self.file, self.shown = file, shown

    def write(self, array: np.ndarray) -> str:
        """Appends one array; returns its `path:offset` entry."""
        offset = self.file.tell()
        padding = -offset % ALIGNMENT
        self.file.write(bytes(padding))
        np.lib.format.write_array(self.file, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
        return f"{self.shown}:{offset + padding}"


def record_shape(entry: str) -> tuple[int, ...]:
    """The shape of an array, from its header; raises InputError as `read_record`."""
    with _Opened(entry) as (_, shape, _):
        return shape


def read_record(entry: str, start: int = 0, count: int | None = None) -> np.ndarray:
    """Reads an array or a part of it.

    Args:
        entry: `path:offset`, as `RecordWriter` gave it.
        start: first row (of the first dimension).
        count: rows; None for all that follow.

    Returns:
        The rows, at most as many as there are, in the stored type.

    Raises:
        InputError: naming the archive and offset: not such an entry, missing, truncated, or no array.
    """
    with _Opened(entry) as (file, shape, dtype):
        start = min(start, shape[0])
        rows = shape[0] - start if count is None else min(count, shape[0] - start)
        size = int(np.prod(shape[1:], dtype=np.int64))
        file.seek(start * size * dtype.itemsize, os.SEEK_CUR)
        return np.fromfile(file, dtype, rows * size).reshape(rows, *shape[1:])


class _Opened:
    """The file at the first value of a record, its shape and type."""

    def __init__(self, entry: str) -> None:
        place = split_offset(entry)
        if place is None:
            raise InputError(f"array entry '{entry}': expected path:offset")
        self.path, self.offset = place

    def __enter__(self) -> tuple[io.FileIO, tuple[int, ...], np.dtype]:
        try:
            self.file = open(self.path, "rb", buffering=0)
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such archive; mend the scp file or make it again") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from None
        try:
            return self.file, *self._header()
        except BaseException:
            self.file.close()
            raise

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def _header(self) -> tuple[tuple[int, ...], np.dtype]:
        self.file.seek(self.offset)
        try:
            version = np.lib.format.read_magic(self.file)
            if version != (1, 0):
                raise ValueError(f"version {version}")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(self.file)
        except (ValueError, SyntaxError) as error:
            raise self._refuse(f"no array ({error}); make the archive again") from None
        if fortran or not shape or dtype.kind not in KINDS:
            raise self._refuse(f"an array that is not read ({dtype} {shape}); make the archive again")
        need = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        left = os.fstat(self.file.fileno()).st_size - self.file.tell()
        if need > left:
            raise self._refuse(
                f"{need} bytes are needed, the archive holds {left} (truncated); make it again"
            )
        return shape, dtype

    def _refuse(self, why: str) -> InputError:
        return InputError(f"{self.path}:{self.offset}: {why}")
