"""Files that are either complete or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from speechkit.errors import InputError


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def disk_full(error: OSError, path: Path) -> InputError | None:
    """The user's line for a full disk or quota, or None for any other error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return InputError(f"{path}: no space left on the disk; free some and run the same command again")


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Opens a temporary neighbour of `path` and renames it onto `path` when the block succeeds.

    Args:
        path: the file to write; its folder is made when missing.
        mode: "w" (UTF-8 text, newline as given) or "wb".

    Raises:
        InputError: when the disk is full; the earlier file, if any, is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(temporary, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_full(error, path) or error from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_files(folder: Path) -> None:
    """Forces all files below a folder to the disk; in threads, because the disk joins what comes together."""

    def sync(file: Path) -> None:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())

    files = [file for file in folder.rglob("*") if file.is_file()]
    if len(files) < 3:
        list(map(sync, files))
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(sync, files))


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`, moved onto `path` when the block succeeds.

    An existing folder at `path` is replaced. Raises InputError when the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _sync_files(temporary)
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise disk_full(error, path) or error from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a small UTF-8 file atomically."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON; raises InputError that names the file and line when it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}:{getattr(error, 'lineno', 1)}: not JSON: {error}") from None


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Writes one JSON object a line, atomically."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def hash_bytes(*parts: bytes) -> str:
    """SHA-256 of the parts, each preceded by its length, as 16 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


def hash_json(value: Any) -> str:
    """Hash of a JSON-able value, independent of key order."""
    return hash_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode())


def hash_file(path: str | Path) -> str:
    """Hash of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()[:16]
