"""IARPA's transcriptions: `[seconds]` lines, a line of text between two of them, and the tags in the text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from speechkit.errors import InputError
from speechkit.text.reading import read_utf8

TIME = re.compile(r"\[(\d+(?:\.\d*)?)\]")
TAG = re.compile(r"<[^<>\s]*>|\(\([^()]*\)\)")


@dataclass
class Rules:
    """conf/tags.yaml."""

    tags: dict[str, str]
    """Tag -> `drop`, `utterance`, or the text that stands in its place."""
    test: dict[str, str]
    """The same for the test set, where it differs."""
    edges: str
    """Characters that are taken off both ends of words."""
    inside: dict[str, str]
    """Character inside words -> the text that stands in its place."""


class Piece(NamedTuple):
    """Text between two times, and the number of its line."""

    line: int
    start: float
    end: float
    text: str


class UnknownTag(ValueError):
    """Something that is no word and not in the rules."""


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of a transcription; times without text between them make none.

    Raises:
        InputError: file and line of what is not of IARPA's form; a file that ends after a text is truncated.
    """
    pieces, start, text, at = [], None, None, 0
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        words = line.strip("\ufeff \t\r")
        if match := TIME.fullmatch(words):
            end = float(match[1])
            if start is not None and end < start:
                raise InputError(
                    f"{path}:{number}: [{end:g}] comes after [{start:g}]; times must not decrease"
                )
            if text is not None:
                pieces.append(Piece(at, start, end, text))
            start, text = end, None
        elif words and start is None:
            raise InputError(
                f"{path}:{number}: text before the first [seconds] line; is this a transcription?"
            )
        elif words and text is not None:
            raise InputError(f"{path}:{number}: a second line of text, where a [seconds] line must stand")
        elif words:
            text, at = words, number
    if text is not None:
        raise InputError(
            f"{path}:{at}: the file ends without the time at which this text does; copy it again"
        )
    return pieces


def clean(text: str, rules: Rules, test: bool) -> tuple[str, Counter[str], list[str]]:
    """The words of a text.

    Args:
        text: as transcribed.
        rules: what becomes of tags and marks.
        test: for the test set.

    Returns:
        The words, how often each tag and mark stood there, and the tags for which the utterance is left out.

    Raises:
        UnknownTag: naming it.
    """
    becomes = rules.tags | (rules.test if test else {})
    words, counts, against = [], Counter(), []
    spaced = TAG.sub(lambda match: f" {'(())' if match[0][0] == '(' else match[0]} ", text)
    for token in spaced.split():
        if token in becomes:
            counts[token] += 1
            what = becomes[token]
            against += [token] if what == "utterance" else []
            words += [what] if what not in ("utterance", "drop") else []
        elif set(token) & set("<>()[]"):
            raise UnknownTag(token)
        else:
            word = token.strip(rules.edges)
            counts.update(set(token[: token.find(word)] + token[token.find(word) + len(word) :]))
            for mark in set(word) & rules.inside.keys():
                counts[mark] += 1
                word = word.replace(mark, rules.inside[mark])
            words.append(word)
    return " ".join(" ".join(words).split()), counts, against
