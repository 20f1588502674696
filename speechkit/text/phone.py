"""Phones as tokens: the text is phones with spaces between them, or words that a lexicon spells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.text.phone_tags import is_flag, strip_tag
from speechkit.text.reading import read_utf8
from speechkit.text.tokenizer import BLANK, EOS, UNK, Options


class PhoneUnits:
    """A token a phone.

    Args:
        lexicon: word -> phones; None when the text is phones already. A word it does not have is one
            piece, which is in no vocabulary of phones and so becomes `<unk>`.
    """

    def __init__(self, lexicon: dict[str, list[str]] | None = None) -> None:
        self.lexicon = lexicon

    def split(self, text: str) -> list[str]:
        """The phones of a normalised text."""
        words = text.split(" ") if text else []
        if self.lexicon is None:
            return words
        # A missing word could be spelled like a phone ("a"), so it stands in brackets.
        return [phone for word in words for phone in self.lexicon.get(word, [f"[{word}]"])]

    def join(self, pieces: Sequence[str]) -> str:
        """The phones with spaces between them (there is no way back to words)."""
        return " ".join(pieces)

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes lexicon.txt when there is one."""
        if self.lexicon is not None:
            lines = (f"{word} {' '.join(phones)}\n" for word, phones in self.lexicon.items())
            write_text(folder / "lexicon.txt", "".join(lines))
        return {"lexicon": self.lexicon is not None}


def read_lexicon(path: str | Path) -> dict[str, list[str]]:
    """Reads `word phone phone ...` lines; a word's first pronunciation counts.

    Raises:
        InputError: missing, empty, not UTF-8, or a line without phones.
    """
    lexicon: dict[str, list[str]] = {}
    for number, line in enumerate(read_utf8(path).removesuffix("\n").split("\n"), start=1):
        word, *phones = line.split() or [""]
        if not phones:
            raise InputError(f"{path}:{number}: expected `word phone phone ...`, got '{line}'")
        lexicon.setdefault(word, phones)
    return lexicon


def build(kind: str, texts: Sequence[str], options: Options) -> tuple[PhoneUnits, list[str]]:
    """Every phone of the lexicon, or of the text without one; by code point.

    Raises:
        InputError: a phone is a mark of a changed language, such as `(en)`, or `(es)(en)`.
    """
    units = PhoneUnits(read_lexicon(options.lexicon) if options.lexicon is not None else None)
    sequences = units.lexicon.values() if units.lexicon is not None else map(units.split, texts)
    phones = sorted({phone for phones in sequences for phone in phones} - {BLANK, UNK, EOS})
    flags = [phone for phone in phones if is_flag(strip_tag(phone))]
    if flags:
        raise InputError(
            f"'{flags[0]}' marks a change of language and is no phone: drop the utterances that have it, "
            "as speechkit phonemize does"
        )
    return units, phones


def load(kind: str, folder: Path, values: dict[str, Any]) -> PhoneUnits:
    """Reads lexicon.txt when the tokenizer was built with one."""
    return PhoneUnits(read_lexicon(folder / "lexicon.txt") if values.get("lexicon") else None)
