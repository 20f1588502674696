"""Phones that carry their language: `(xx)p` in a separate vocabulary, plain `p` in a shared one."""

from __future__ import annotations

import re

from speechkit.errors import InputError

_TAGGED = re.compile(r"\(([a-z][a-z0-9-]*)\)(.+)", re.DOTALL)
_FLAG = re.compile(r"\([A-Za-z][A-Za-z0-9-]*\)")
_CODE = re.compile(r"[a-z][a-z0-9-]*")


def check_code(code: str) -> str:
    """The code; InputError unless it can stand in a tag: small letters, digits and `-`."""
    if not _CODE.fullmatch(code):
        raise InputError(f"language code '{code}': take small letters, digits and '-', such as en")
    return code


def add_tag(code: str, phone: str) -> str:
    """The symbol of a language's phone in a separate vocabulary: `(en)p`."""
    return f"({code}){phone}"


def tag_of(symbol: str) -> str | None:
    """The language code of a tagged symbol; None for one without a tag."""
    match = _TAGGED.fullmatch(symbol)
    return match[1] if match else None


def strip_tag(symbol: str) -> str:
    """The phone of a symbol, with or without a tag."""
    match = _TAGGED.fullmatch(symbol)
    return match[2] if match else symbol


def strip_tags(text: str) -> str:
    """Symbols with spaces between them, each without its tag."""
    return " ".join(map(strip_tag, text.split()))


def is_flag(symbol: str) -> bool:
    """Whether a symbol is a mark of a phonemizer that it changed the language, such as `(en)`: no phone."""
    return _FLAG.fullmatch(symbol) is not None
