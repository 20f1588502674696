"""Stamps: a command skips itself when its options, its inputs and its outputs are unchanged."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechkit import __version__
from speechkit.files import hash_bytes, hash_file, hash_json, read_json, write_json

# Above this size a file counts by size and modification time: hashing hours of audio costs minutes.
HASHED_BYTES = 64 << 20


def fingerprint(path: Path) -> str:
    """Hash of a file's content (or of size and time for a large one), or of all files below a folder."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        return hash_json([[str(p.relative_to(path)), _identity(p)] for p in files])
    if not path.exists():
        return "missing"
    stat = path.stat()
    return hash_file(path) if stat.st_size <= HASHED_BYTES else _identity(path)


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


class Stamp:
    """What a command was run with, kept as `.<verb>.stamp` beside its output.

    Args:
        output: the file or folder that the command makes.
        verb: the command's name.
        options: everything that changes the result (JSON-able).
        inputs: files and folders that the command reads.
        force: never skip.
        again: how to make it again, for the message.
    """

    def __init__(
        self,
        output: str | Path,
        verb: str,
        options: Any,
        inputs: Iterable[str | Path] = (),
        force: bool = False,
        again: str = "(--force true makes it again)",
    ) -> None:
        self.output, self.verb, self.force, self.again = Path(output), verb, force, again
        self.path = self.output.parent / f".{self.output.name}.{verb}.stamp"
        self.inputs = [Path(path) for path in inputs]
        self.options = hash_bytes(hash_json(options).encode(), __version__.encode())

    def _now(self) -> dict:
        return {
            "options": self.options,
            "inputs": {str(path): fingerprint(path) for path in self.inputs},
            "output": fingerprint(self.output),
        }

    def fresh(self, tell: bool = True) -> bool:
        """True when nothing changed since `write`; then says so on standard error, if it is to tell."""
        if self.force or not self.path.exists() or not self.output.exists():
            return False
        if read_json(self.path) != self._now():
            return False
        if tell:
            print(f"speechkit {self.verb}: {self.output} is up to date {self.again}", file=sys.stderr)
        return True

    def write(self) -> None:
        """Records the present state; call it last, when the output is complete."""
        write_json(self.path, self._now())
