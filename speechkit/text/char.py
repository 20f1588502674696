"""Characters (code points) as tokens; a space is the token `▁`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechkit.text.tokenizer import Options

SPACE = "▁"


class CharUnits:
    """A token a code point."""

    def split(self, text: str) -> list[str]:
        """The characters of a normalised text, `▁` for a space."""
        return list(text.replace(" ", SPACE))

    def join(self, pieces: Sequence[str]) -> str:
        """The text of some characters, with single spaces and none at the ends."""
        return " ".join("".join(pieces).replace(SPACE, " ").split())

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing to write."""
        return {}


def build(kind: str, texts: Sequence[str], options: Options) -> tuple[CharUnits, list[str]]:
    """Every character of the texts, by code point; the space is always there, and first."""
    characters = set().union(*map(set, texts)) - {" "} if texts else set()
    return CharUnits(), [SPACE, *sorted(characters)] if characters else []


def load(kind: str, folder: Path, values: dict[str, Any]) -> CharUnits:
    """Nothing to read."""
    return CharUnits()
