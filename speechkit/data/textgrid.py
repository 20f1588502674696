"""Praat's TextGrids: the intervals of one tier, from files in the long or the short text form.

Praat reads both forms alike: what counts are free-standing numbers, strings in quotation marks (in which two
stand for one) and flags such as <exists>; all else, and what follows `!` on a line, is for people. Source:
Boersma & Weenink, the Praat manual, "TextGrid file formats".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from speechkit.errors import InputError

PHONE_TIERS = ("phones", "phone", "phonemes", "segments")
"""Names under which the tier of phones goes, where none is asked for."""

_TOKEN = re.compile(r'"(?:[^"]|"")*"(?!")|<[^<>\s]*>|![^\n]*|[^\s"]+|"')
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_MOST = 10_000_000  # of tiers, or of what is in one: more is a damaged count


class _Tokens:
    """What counts in a file, one after the other, and the line it stands on."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 1
        self._found = self._scan(_decode(path))

    def _scan(self, text: str) -> Iterator[str]:
        place = 0
        for match in _TOKEN.finditer(text):
            self.line += text.count("\n", place, match.start())
            place = match.start()
            token = match[0]
            if token[0] in '"<' or _NUMBER.fullmatch(token):
                yield token

    def next(self, what: str, pattern: str) -> str:
        """The next token; InputError, saying `what` should stand there, when it is none such."""
        token = next(self._found, None)
        if token is None:
            raise InputError(f"{self.path}:{self.line}: ends where {what} should follow; is it complete?")
        if not re.fullmatch(pattern, token, re.DOTALL):
            raise InputError(f"{self.path}:{self.line}: expected {what}, not {token[:40]}")
        return token

    def text(self, what: str) -> str:
        """A string, without its quotation marks."""
        return self.next(what, '".*"')[1:-1].replace('""', '"')

    def number(self, what: str) -> float:
        """A number."""
        return float(self.next(what, _NUMBER.pattern))

    def count(self, what: str) -> int:
        """A number of things."""
        value = self.number(what)
        if value != int(value) or not 0 <= value <= _MOST:
            raise InputError(f"{self.path}:{self.line}: expected {what}, not {value:g}")
        return int(value)


def read_textgrid(path: str | Path, tier: str | None = None) -> list[tuple[int, float, float, str]]:
    """The intervals of one tier.

    Args:
        path: the file, in UTF-8 or UTF-16 with a byte order mark.
        tier: its name; None takes the one called phones (phone, phonemes, segments), or the only one.

    Returns:
        Line of the file, start and end in seconds, and label (without space around it, often empty), each.

    Raises:
        InputError: no TextGrid, or one that is cut short; no such tier of intervals.
    """
    tokens = _Tokens(Path(path))
    kind = [tokens.text(f'"{word}"') for word in ("ooTextFile", "TextGrid")]
    if not kind[0].startswith("ooTextFile") or kind[1] != "TextGrid":
        raise InputError(f"{path}: no TextGrid in text form; save it again with Praat's 'Save as text file'")
    for what in ("the time at which it begins", "the time at which it ends"):
        tokens.number(what)
    tokens.next("<exists>", "<exists>")
    tiers: dict[str, list[tuple[int, float, float, str]]] = {}
    for _ in range(tokens.count("a number of tiers")):
        name, intervals = _read_tier(tokens)
        if intervals is not None:
            if name in tiers and name == tier:
                raise InputError(f"{path}:{tokens.line}: two tiers are called '{name}'")
            tiers.setdefault(name, intervals)
    return tiers[_choose(path, list(tiers), tier)]


def _read_tier(tokens: _Tokens) -> tuple[str, list[tuple[int, float, float, str]] | None]:
    """Name and intervals; None for a tier of points."""
    kind = tokens.next('"IntervalTier" or "TextTier"', '"(IntervalTier|TextTier)"')
    name = tokens.text("the name of a tier").strip()
    for what in ("the time at which a tier begins", "the time at which a tier ends"):
        tokens.number(what)
    size = tokens.count("how much is in a tier")
    if kind == '"TextTier"':
        for _ in range(size):
            tokens.number("the time of a point")
            tokens.text("the label of a point")
        return name, None
    rows = []
    for _ in range(size):
        start = tokens.number("the start of an interval")
        line = tokens.line
        rows.append((line, start, tokens.number("its end"), tokens.text("its label").strip()))
    return name, rows


def _choose(path: str | Path, names: list[str], tier: str | None) -> str:
    listed = ", ".join(f"'{name}'" for name in names) or "none"
    if tier is not None:
        if tier not in names:
            raise InputError(f"{path}: no tier of intervals called '{tier}'; there are: {listed}")
        return tier
    usual = [name for name in names if name.casefold() in PHONE_TIERS]
    if len(usual) == 1 or len(names) == 1:
        return (usual or names)[0]
    raise InputError(f"{path}: which tier holds the phones? name it; tiers of intervals: {listed}")


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: neither UTF-8 nor UTF-16 with a byte order mark") from None
