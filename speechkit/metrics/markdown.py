"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

# An underscore inside a word, as ids have them, means nothing to Markdown.
_MARKUP = re.compile(r"([\\`*{}\[\]<>|#~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def escape(text: Any) -> str:
    """Text for a Markdown cell: markup characters are escaped, line breaks become spaces."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def each(values: Iterable[Any]) -> str:
    """The different values that say something, in their order."""
    return "; ".join(dict.fromkeys(str(value) for value in values if value))
