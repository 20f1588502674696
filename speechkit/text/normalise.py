"""The one declared text normaliser: training text, language model text, references and hypotheses."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from speechkit.files import hash_json

# Raised when the same configuration would give another text, so that hashes tell old from new.
RULES = 1

_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Config:
    """What the normaliser does; `exceptions` only matters when punctuation is removed."""

    form: Literal["NFC", "NFD", "NFKC", "NFKD", "none"] = "NFC"
    """Unicode normalisation form (Unicode Standard Annex 15)."""
    case: Literal["keep", "lower", "upper"] = "keep"
    """Letter case."""
    punctuation: Literal["keep", "remove"] = "keep"
    """`remove`: every character of the Unicode categories P* becomes a space, save the exceptions."""
    exceptions: str = "'’"
    """Punctuation that stays: it belongs to words."""


class Normaliser:
    """Maps text to its declared form; applying it twice changes nothing more.

    In order: U+2581 (`▁`, which token lists use for a space) becomes `_`; Unicode form; case;
    punctuation; the form again, as the steps between may undo it; every run of white space and
    control characters becomes one space, none at the ends.

    Args:
        config: the steps; by default NFC and white space only.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._punctuation = _Punctuation(self.config.exceptions)

    @property
    def hash(self) -> str:
        """Identifies the rules: equal hashes give equal text."""
        return hash_json({"rules": RULES, **dataclasses.asdict(self.config)})

    def __call__(self, text: str) -> str:
        """The normalised text."""
        text = self._form(text.replace("▁", "_"))
        if self.config.case != "keep":
            text = text.lower() if self.config.case == "lower" else text.upper()
        if self.config.punctuation == "remove":
            text = text.translate(self._punctuation)
        return _BLANKS.sub(" ", self._form(text)).strip(" ")

    def _form(self, text: str) -> str:
        return text if self.config.form == "none" else unicodedata.normalize(self.config.form, text)


class _Punctuation(dict):
    """Code point -> what stands for it where punctuation is removed; each is looked up once."""

    def __init__(self, exceptions: str) -> None:
        super().__init__()
        self.exceptions = exceptions

    def __missing__(self, code: int) -> int:
        character = chr(code)
        removed = unicodedata.category(character)[0] == "P" and character not in self.exceptions
        self[code] = ord(" ") if removed else code
        return self[code]
