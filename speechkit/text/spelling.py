"""How a text is written where BERT's pieces do not say: spaces beside marks and Chinese characters, case.

BERT cuts at every punctuation mark and around every Chinese character, and uncased models drop capitals;
`don't`, `don 't` and `DON'T` are the same three pieces. What training text shows of it is remembered here,
so that recognised pieces become words as the references write them.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechkit.text.tokenizer import UNK

INSIDE = "'’-"
"""Marks that mostly stand inside a word: the rule for those that no training text shows."""

_ASCII_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_CHINESE = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""Blocks of characters that BERT takes for a word each (google-research/bert, tokenization.py)."""


def is_mark(word: str) -> bool:
    """Whether BERT cut this word out because it is a punctuation mark."""
    return len(word) == 1 and (word in _ASCII_MARKS or unicodedata.category(word)[0] == "P")


def is_chinese(word: str) -> bool:
    """Whether BERT cut this word out because it is a Chinese character."""
    return len(word) == 1 and any(first <= ord(word) <= last for first, last in _CHINESE)


@dataclass
class Spelling:
    """What is remembered; the defaults are for text of which nothing is known.

    A joint says on which sides a mark has no space: "l", "r", "lr" or "". It is looked up by the words on
    both sides, then by the next word (`'s`, `'tis`), then by the word before (`boys'`).

    Attributes:
        around: `before mark next` -> joint, where `after` says another.
        after: `mark next` -> joint.
        before: `before mark` -> joint.
        chinese: no space between Chinese characters.
        mixed: no space between a Chinese character and another word.
        upper: all letters are capitals.
    """

    around: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    chinese: bool = True
    mixed: bool = False
    upper: bool = False

    def join(self, pieces: Sequence[str]) -> str:
        """The text of some pieces; those that begin with `##` continue a word."""
        words: list[str] = []
        for piece in pieces:
            if piece.startswith("##") and len(piece) > 2:
                words[-1:] = [words[-1] + piece[2:]] if words else [piece[2:]]
            else:
                words.append(piece)
        shown = [word.upper() if self.upper and word != UNK else word for word in words]
        parts = [""] if not words else [shown[0]]
        for place in range(1, len(words)):
            parts.append(shown[place] if self._joined(words, place) else f" {shown[place]}")
        return "".join(parts)

    def _joined(self, words: list[str], place: int) -> bool:
        """Whether there is no space before the word at `place`, from 1."""
        before, word = words[place - 1], words[place]
        if is_mark(word):
            return "l" in self._joint(words, place)
        if is_mark(before):
            return "r" in self._joint(words, place - 1)
        chinese = is_chinese(before) + is_chinese(word)
        return (False, self.mixed, self.chinese)[chinese]

    def _joint(self, words: list[str], place: int) -> str:
        before, mark, after = _context(words, place)
        found = self.around.get(f"{before} {mark} {after}")
        if found is None:
            found = self.after.get(f"{mark} {after}", self.before.get(f"{before} {mark}"))
        if found is not None:
            return found
        inside = mark in INSIDE and before[-1:].isalnum() and after[:1].isalnum()
        return "lr" if inside else ""

    def record(self) -> dict[str, Any]:
        """As JSON; `Spelling(**record)` gives it back."""
        return dataclasses.asdict(self)


def _context(words: Sequence[str], place: int) -> tuple[str, str, str]:
    """A word with its neighbours, which are empty at the ends."""
    before = words[place - 1] if place else ""
    return before, words[place], words[place + 1] if place + 1 < len(words) else ""


def learn(texts: Iterable[str], cut: Callable[[str], list[str]], lower_case: bool) -> Spelling:
    """What a text shows.

    Args:
        texts: normalised training text.
        cut: BERT's words of a text, before they are cut into pieces.
        lower_case: whether `cut` makes letters small.
    """
    around: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    chinese: dict[int, Counter[bool]] = {1: Counter(), 2: Counter()}
    upper = lower = False
    for text in texts:
        words, spaced = _words(text, cut)
        upper, lower = upper or text != text.lower(), lower or text != text.upper()
        for place, word in enumerate(words):
            if is_mark(word):
                left = place > 0 and not spaced[place]
                right = place + 1 < len(words) and not spaced[place + 1]
                around[_context(words, place)]["l" * left + "r" * right] += 1
            elif place and not is_mark(words[place - 1]):
                kind = is_chinese(words[place - 1]) + is_chinese(word)
                if kind:
                    chinese[kind][not spaced[place]] += 1
    spelling = _joints(around)
    if chinese[2]:
        spelling.chinese = chinese[2][True] > chinese[2][False]
    spelling.mixed = chinese[1][True] > chinese[1][False]
    spelling.upper = lower_case and upper and not lower
    return spelling


def _words(text: str, cut: Callable[[str], list[str]]) -> tuple[list[str], list[bool]]:
    """BERT's words of a text, and whether a space stands before each."""
    words, spaced = [], []
    for written in text.split():
        parts = cut(written)
        words += parts
        spaced += [index == 0 for index in range(len(parts))]
    return words, spaced


def _joints(around: dict[tuple[str, str, str], Counter[str]]) -> Spelling:
    after: dict[str, Counter[str]] = defaultdict(Counter)
    before: dict[str, Counter[str]] = defaultdict(Counter)
    for (left, mark, right), counts in around.items():
        after[f"{mark} {right}"] += counts
        before[f"{left} {mark}"] += counts
    spelling = Spelling(after=_most(after), before=_most(before))
    whole = _most({" ".join(context): counts for context, counts in around.items()})
    expected = {" ".join(context): spelling.after[f"{context[1]} {context[2]}"] for context in around}
    spelling.around = {key: joint for key, joint in whole.items() if joint != expected[key]}
    return spelling


def _most(counts: dict[str, Counter[str]]) -> dict[str, str]:
    """The most frequent joint of each key, in the order of the keys."""
    return {key: max(sorted(counts[key]), key=counts[key].__getitem__) for key in sorted(counts)}
