"""Which word each token of a hypothesis belongs to, so that outputs of different units can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechkit.data.batch import pad
from speechkit.text.char import SPACE
from speechkit.text.spelling import INSIDE


def word_numbers(hypotheses: Sequence[Sequence[str]], kind: str) -> Tensor:
    """The word that each piece belongs to.

    Args:
        hypotheses: the pieces of each utterance.
        kind: of the tokenizer that made them: in "char", "bpe" and "unigram" pieces a word begins at `▁` or
            after one, and a `▁` alone belongs to the word before it; a "wordpiece" begins a word unless it
            has `##`, apostrophes and hyphens being inside words; of any other kind every piece is a word.

    Returns:
        `(B, U)` int64, -1 beyond the pieces.
    """
    continues = {"char": _spaced, "bpe": _spaced, "unigram": _spaced, "wordpiece": _cut_up}.get(kind, _never)
    rows = []
    for pieces in hypotheses:
        before = ["", *pieces]  # the piece before each piece
        starts = [i == 0 or not continues(before[i], piece) for i, piece in enumerate(pieces)]
        rows.append(torch.tensor(starts, dtype=torch.int64).cumsum(0) - 1)
    return pad(rows, -1).values if rows else torch.empty(0, 0, dtype=torch.int64)


def _spaced(before: str, piece: str) -> bool:
    return piece == SPACE or not (piece.startswith(SPACE) or before == SPACE)


def _cut_up(before: str, piece: str) -> bool:
    return piece.startswith("##") or bool({piece, before} & set(INSIDE))


def _never(before: str, piece: str) -> bool:
    return False
