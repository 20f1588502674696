"""ARPA files, plain or gzip: read with every line checked, written all or nothing.

Format: `\\data\\`, `ngram N=count` lines, then a section `\\N-grams:` an order with
`log10 <tab> words [<tab> back-off]` lines, and `\\end\\`.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from speechkit.errors import InputError
from speechkit.files import atomic_write
from speechkit.lm.ngram import BOS, EOS, UNK, Level, NgramLM

UNKNOWN_LOG10 = -100.0
"""log10 probability of `<unk>` in a model without one, as in kenlm."""


class _Lines:
    """Lines of a text with their numbers, and errors that name them."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self.number, self._file = path, 0, iter(file)

    def next(self) -> str:
        """The next line that is not blank, stripped."""
        for line in self._file:
            self.number += 1
            if line := line.strip():
                return line
        raise self.error("the file ends early; it is cut off or its counts are too high")

    def take(self, count: int) -> list[str]:
        """The next `count` lines, which follow each other without blank ones."""
        lines = [line for _, line in zip(range(count), self._file)]
        self.number += len(lines)
        return lines

    def error(self, message: str, number: int | None = None) -> InputError:
        return InputError(f"{self.path}:{number or max(self.number, 1)}: {message}")


def read_arpa(path: str | Path) -> NgramLM:
    """Reads an ARPA file (`.gz` too).

    A model without `<unk>` gets one of log10 probability -100.

    Raises:
        InputError: with file and line: missing or cut-off file, wrong counts, numbers that are none,
            positive log probabilities, unknown or repeated n-grams, an n-gram without its first words.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            lines = _Lines(path, file)
            try:
                return _parse(lines)
            except UnicodeDecodeError as error:
                raise lines.error(f"not UTF-8 ({error.reason})", lines.number + 1) from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such language model") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: broken gzip file: {error}") from None


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    return open(path, encoding="utf-8", newline="\n")


def _parse(lines: _Lines) -> NgramLM:
    counts = _header(lines)
    words: list[str] = []
    index: dict[str, int] = {}
    levels: list[Level] = []
    keys: list[np.ndarray] = []
    for order, count in enumerate(counts, start=1):
        first = lines.number + 1
        scores, backoffs, columns = _section(lines, order, count)
        if order == 1:
            words, index = _vocabulary(lines, columns[0], first)
        ids = np.array([[index.get(word, -1) for word in column] for column in columns], dtype=np.int64)
        if (ids < 0).any():
            column, row = (int(where[0]) for where in np.nonzero(ids < 0))
            raise lines.error(f"'{columns[column][row]}' is not among the unigrams", first + row)
        if order == 1:
            scores, backoffs, ids = _with_unknown(words, scores, backoffs, ids)
        level, key = _level(lines, first, ids, levels, keys, len(words))
        sort = np.argsort(key, kind="stable")
        levels.append(Level(level[0][sort], ids[-1][sort], level[1][sort], scores[sort], backoffs[sort]))
        keys.append(key[sort])
        section = f"\\{order + 1}-grams:" if order < len(counts) else "\\end\\"
        if (line := lines.next()) != section:
            raise lines.error(f"expected {section} after {count} {order}-grams, got '{line[:60]}'")
    return NgramLM(words, levels)


def _header(lines: _Lines) -> list[int]:
    try:
        while lines.next() != "\\data\\":
            pass
    except InputError:
        raise InputError(f"{lines.path}: not an ARPA file (no \\data\\ line)") from None
    counts: list[int] = []
    while (line := lines.next()) != "\\1-grams:":
        match = re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", line)
        if not match or int(match[1]) != len(counts) + 1:
            raise lines.error(f"expected `ngram {len(counts) + 1}=count` or \\1-grams:, got '{line[:60]}'")
        counts.append(int(match[2]))
    if not counts:
        raise lines.error("no `ngram 1=count` line before \\1-grams:")
    return counts


def _section(lines: _Lines, order: int, count: int) -> tuple[np.ndarray, np.ndarray, list[tuple[str, ...]]]:
    """log10 probabilities, back-offs and the columns of words of one order's lines."""
    first = lines.number + 1
    rows = [line.split() for line in lines.take(count)]
    widths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    wrong = np.flatnonzero((widths != order + 1) & (widths != order + 2))
    if wrong.size or len(rows) < count:
        row = int(wrong[0]) if wrong.size else len(rows)
        raise lines.error(
            f"expected {count} lines of a number, {order} word{'s' * (order > 1)} and perhaps a back-off; "
            f"this is line {row + 1} of them",
            first + row,
        )
    try:
        scores = np.array([float(row[0]) for row in rows])
        backoffs = np.array([float(row[-1]) if len(row) == order + 2 else 0.0 for row in rows])
    except ValueError:
        raise _not_a_number(lines, rows, order, first) from None
    bad = np.flatnonzero(~(scores <= 1e-6) | ~np.isfinite(backoffs))
    if bad.size:
        raise lines.error(
            f"'{rows[bad[0]][0]}' is no log10 probability, or its back-off is not finite", first + int(bad[0])
        )
    columns = list(zip(*rows))[1 : order + 1] if rows else [()] * order
    return np.minimum(scores, 0).astype(np.float32), backoffs.astype(np.float32), columns


def _not_a_number(lines: _Lines, rows: list[list[str]], order: int, first: int) -> InputError:
    for number, row in enumerate(rows, start=first):
        for text in [row[0], *row[order + 1 :]]:
            try:
                float(text)
            except ValueError:
                return lines.error(f"'{text}' is not a number", number)
    raise AssertionError("every field is a number")


def _vocabulary(lines: _Lines, column: tuple[str, ...], first: int) -> tuple[list[str], dict[str, int]]:
    words = [UNK if word == "<UNK>" else word for word in column]
    index: dict[str, int] = {}
    for number, word in enumerate(words):
        if index.setdefault(word, number) != number:
            raise lines.error(f"'{word}' is listed twice among the unigrams", first + number)
    for word in (BOS, EOS):
        if word not in index:
            raise lines.error(f"no unigram {word}")
    if UNK not in index:
        index[UNK] = len(words)
        words.append(UNK)
    index.setdefault("<UNK>", index[UNK])
    return words, index


def _with_unknown(words: list[str], scores: np.ndarray, backoffs: np.ndarray, ids: np.ndarray) -> tuple:
    """Adds the unigram of `<unk>` when the file had none."""
    if len(words) == len(scores):
        return scores, backoffs, ids
    added = np.arange(len(words), dtype=np.int64)[None]
    return np.append(scores, np.float32(UNKNOWN_LOG10)), np.append(backoffs, np.float32(0)), added


def _level(
    lines: _Lines, first: int, ids: np.ndarray, levels: list[Level], keys: list[np.ndarray], size: int
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Prefix and suffix of every n-gram `ids (n, N)`, and its sort key."""
    prefix, suffix = _locate(ids[:-1], keys, size), _locate(ids[1:], keys, size)
    if (prefix < 0).any():
        row = int(np.flatnonzero(prefix < 0)[0])
        raise lines.error(f"no {len(ids) - 1}-gram of its first {len(ids) - 1} words", first + row)
    key = prefix * size + ids[-1]
    unique, counts = np.unique(key, return_counts=True)
    if len(unique) < len(key):
        again = np.flatnonzero(key == unique[counts > 1][0])[1]
        raise lines.error("this n-gram is listed twice", first + int(again))
    return (prefix, suffix), key


def _locate(ids: np.ndarray, keys: list[np.ndarray], size: int) -> np.ndarray:
    """Index of the n-grams `ids (n, N)` in level n, -1 where absent; 0 for n = 0."""
    found = np.zeros(ids.shape[1], dtype=np.int64)
    for order, column in enumerate(ids):
        wanted = np.where(found >= 0, found * size + column, -1)
        place = np.searchsorted(keys[order], wanted).clip(max=len(keys[order]) - 1)
        if not len(keys[order]):
            return np.full(ids.shape[1], -1)
        found = np.where(keys[order][place] == wanted, place, -1)
    return found


def write_arpa(lm: NgramLM, path: str | Path) -> None:
    """Writes a model as ARPA text (gzip for `.gz`), complete or not at all.

    Numbers are written in the fewest digits that read back to the same float32.
    """
    path = Path(path)
    with atomic_write(path, "wb") as raw:
        if path.suffix == ".gz":  # no name and time inside: the same model gives the same bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                _write(lm, packed)
        else:
            _write(lm, raw)


def _write(lm: NgramLM, raw: IO[bytes]) -> None:
    file = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    file.write("\\data\\\n" + "".join(f"ngram {n}={len(v)}\n" for n, v in enumerate(lm.levels, start=1)))
    texts: list[str] = [""]
    for order, level in enumerate(lm.levels, start=1):
        texts = [f"{texts[p]} {lm.words[w]}".lstrip() for p, w in zip(level.prefix, level.word)]
        file.write(f"\n\\{order}-grams:\n")
        file.writelines(_rows(level, texts, last=order == lm.order))
    file.write("\n\\end\\\n")
    file.detach()


def _rows(level: Level, texts: list[str], last: bool) -> Iterator[str]:
    scores, backoffs = level.log10.astype(str), level.backoff.astype(str)
    for text, score, backoff in zip(texts, scores, backoffs):
        yield f"{score}\t{text}\n" if last else f"{score}\t{text}\t{backoff}\n"
