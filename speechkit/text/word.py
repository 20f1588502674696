"""Words as tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.text.reading import read_sentences
from speechkit.text.tokenizer import BLANK, EOS, UNK, Options


class WordUnits:
    """A token a white-space separated word."""

    def split(self, text: str) -> list[str]:
        """The words of a normalised text."""
        return text.split(" ") if text else []

    def join(self, pieces: Sequence[str]) -> str:
        """The words with spaces between them."""
        return " ".join(pieces)

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing to write."""
        return {}


def build(kind: str, texts: Sequence[str], options: Options) -> tuple[WordUnits, list[str]]:
    """Words seen at least `min_count` times, or the words of a list; by code point."""
    units = WordUnits()
    if options.words is not None:
        words = {line.split()[0] for line in read_sentences(options.words).values()}
    else:
        counts = Counter(word for text in texts for word in units.split(text))
        words = {word for word, count in counts.items() if count >= options.min_count}
        if counts and not words:
            most = max(counts.values())
            raise InputError(
                f"--min-count {options.min_count}: no word is that frequent (the most frequent: {most})"
            )
    return units, sorted(words - {BLANK, UNK, EOS})


def load(kind: str, folder: Path, values: dict[str, Any]) -> WordUnits:
    """Nothing to read."""
    return WordUnits()
