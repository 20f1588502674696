"""Phones found earlier, so that the same sentences are not spelt again: one file a source and language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.files import atomic_write, hash_bytes, hash_json, read_json, write_json
from speechkit.text.reading import read_utf8


class PhoneCache:
    """Lines `hash<tab>what the source wrote` in `<folder>/<source>-<language>-<hash of the options>.tsv`.

    Args:
        folder: made when missing.
        options: everything that the source's output depends on: source, language, version ...
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        name = f"{options['source']}-{options['language']}-{hash_json(options)}.tsv"
        self.path = folder / name
        self.known = self._read() if self.path.is_file() else {}

    def _read(self) -> dict[str, str]:
        known = {}
        for number, line in enumerate(read_utf8(self.path).removesuffix("\n").split("\n"), start=1):
            key, tab, raw = line.partition("\t")
            if len(key) != 16 or not tab:
                raise InputError(f"{self.path}:{number}: not a line of the cache of phones; remove the file")
            known[key] = raw
        return known

    def get(self, texts: Sequence[str], spell: Callable[[list[str]], list[str]]) -> list[str]:
        """What the source writes for each text; it is asked once for each that is new."""
        keys = [hash_bytes(text.encode()) for text in texts]
        new = {key: text for key, text in zip(keys, texts) if key not in self.known}
        if new:
            self.known |= zip(new, spell(list(new.values())))
            with atomic_write(self.path) as file:
                file.writelines(f"{key}\t{raw}\n" for key, raw in self.known.items())
        return [self.known[key] for key in keys]


def remembered_version(folder: Path, program: str, ask: Callable[[], str]) -> str:
    """The version of a program, asked once as long as its file does not change.

    Args:
        folder: of the cache; its versions.json is read and written.
        program: path of the program.
        ask: starts it.
    """
    path, place = folder / "versions.json", Path(program).resolve()
    stat = place.stat()
    key = f"{place} {stat.st_size} {stat.st_mtime_ns}"
    known = read_json(path) if path.is_file() else {}
    if not isinstance(known, dict):
        raise InputError(f"{path}: not a record of versions; remove the file")
    if not isinstance(known.get(key), str):
        write_json(path, known | {key: ask()})
        known = read_json(path)
    return known[key]
