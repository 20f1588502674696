"""Word alignments with the fewest errors, ties as in NIST's sclite, and how to show them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

GAP = ""
"""Stands opposite an inserted or deleted word."""

Pairs = list[tuple[str, str]]


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Pairs:
    """Pairs every reference word with a hypothesis word or with a gap.

    The number of errors is the edit distance, as in Kaldi's compute-wer. Among the alignments with
    that many, sclite's is taken where it is one of them: it weighs a substitution 4 and an insertion
    or deletion 3, so two substitutions give way to a word found again. (sclite itself keeps those
    weights even where they cost an error more, as 6 insertions and deletions against 5 substitutions.)

    Args:
        reference: words, none of them empty.
        hypothesis: words, none of them empty.

    Returns:
        `(reference word, hypothesis word)` pairs; GAP first is an insertion, GAP second a deletion.
    """
    from kaldialign import align as kaldi_align
    from kaldialign import edit_distance

    # Both turned round: of equally good alignments sclite takes the one that matches late words.
    backward = list(reference)[::-1], list(hypothesis)[::-1]
    pairs = kaldi_align(*backward, GAP, sclite_mode=True)
    if sum(a != b for a, b in pairs) > edit_distance(*backward)["total"]:
        pairs = kaldi_align(*backward, GAP)
    return [tuple(pair) for pair in pairs[::-1]]


def operation(reference: str, hypothesis: str) -> str:
    """ "C" correct, "S" substitution, "D" deletion or "I" insertion, of one pair."""
    if reference == hypothesis:
        return "C"
    return "I" if reference == GAP else "D" if hypothesis == GAP else "S"


def shown(pairs: Pairs) -> str:
    """Three lines REF, HYP and EVAL in columns; stars stand for a missing word."""
    rows: tuple[list[str], list[str], list[str]] = ([], [], [])
    for reference, hypothesis in pairs:
        kind = operation(reference, hypothesis)
        wide = max(_width(reference), _width(hypothesis), 1)
        cells = (reference or "*" * wide, hypothesis or "*" * wide, "" if kind == "C" else kind)
        for row, cell in zip(rows, cells):
            row.append(cell + " " * (wide - _width(cell)))
    names = ("REF: ", "HYP: ", "EVAL:")
    return "\n".join(" ".join([name, *row]).rstrip() for name, row in zip(names, rows))


def _width(text: str) -> int:
    """Columns on a terminal: none for a combining mark, two for a wide East Asian character."""
    marks = ("Mn", "Me", "Cf")
    wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return wide - sum(unicodedata.category(c) in marks for c in text)
