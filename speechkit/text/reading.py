"""Plain text files: `utterance words...` lines as in Kaldi's `text`, or sentences without ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechkit.errors import InputError, Problem, ProblemsError

REPORTED = 20


def read_utf8(path: str | Path) -> str:
    """A whole UTF-8 text file.

    Raises:
        InputError: missing, empty, or not UTF-8 (with line and byte offset).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f"byte {error.start} of the file is 0x{content[error.start]:02x}"
        raise InputError(f"{path}:{line}: not UTF-8: {where}; convert it (iconv -t UTF-8)") from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines; only line feeds end a line, as other Unicode separators may stand in a text."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        yield number, line.removesuffix("\r")


def read_text(path: str | Path, empty: bool = True) -> dict[str, str]:
    """Reads a Kaldi `text` file.

    Args:
        path: lines `utterance words...`; the words are kept as they are, the normaliser comes later.
        empty: whether an utterance may have no words (a hypothesis may, a reference may not).

    Returns:
        Text of every utterance, in the order of the file.

    Raises:
        ProblemsError: every duplicate id, blank line and, unless `empty`, missing text as file:line.
        InputError: the file is missing, empty or not UTF-8.
    """
    utterances: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in _lines(read_utf8(path)):
        parts = line.split(maxsplit=1)
        if not parts:
            problems.append(Problem(str(path), number, "blank line; expected an utterance id and its text"))
        elif parts[0] in utterances:
            problems.append(Problem(str(path), number, "utterance id is there twice", parts[0]))
        elif len(parts) == 1 and not empty:
            problems.append(Problem(str(path), number, "utterance without text", parts[0]))
        else:
            utterances[parts[0]] = parts[1].rstrip() if len(parts) == 2 else ""
    if problems:
        more = len(problems) - REPORTED
        rest = [Problem(str(path), 0, f"and {more} more problems")] if more > 0 else []
        raise ProblemsError(problems[:REPORTED] + rest)
    return utterances


def read_sentences(path: str | Path) -> dict[str, str]:
    """Reads text without utterance ids; lines are called `file:line`, blank ones are skipped."""
    return {f"{path}:{number}": line for number, line in _lines(read_utf8(path)) if line.strip()}
