"""Which of two systems a recipe expects to be better."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"(?P<first>\S+/\S+) < (?P<second>\S+/\S+)(?: in (?P<words>\S+))?")


@dataclass(frozen=True)
class Ordering:
    """An expectation: the first has the lower error rate.

    Attributes:
        first: `system/how`.
        second: `system/how`.
        words: the class of words that it is about, or None for all.
    """

    first: str
    second: str
    words: str | None = None

    @property
    def claim(self) -> str:
        """As it is written in a systems file."""
        return f"{self.first} < {self.second}" + (f" in {self.words}" if self.words else "")


def read_ordering(text: str) -> Ordering:
    """Reads `system/how < system/how` or `system/how < system/how in <class of words>`.

    Raises:
        ValueError: another form.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}': expected system/how < system/how, with `in far` for a class of words")
    return Ordering(**match.groupdict())
