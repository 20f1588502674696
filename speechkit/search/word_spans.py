"""Which tokens of a hypothesis spell which word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from speechkit.fusion.word_numbers import word_numbers
from speechkit.search.greedy import Span
from speechkit.text.char import SPACE
from speechkit.text.tokenizer import Tokenizer


class Word(NamedTuple):
    """A word, where its tokens stand in the hypothesis, and its frames: `end` is not included."""

    text: str
    places: list[int]
    start: int
    end: int


def words_of(spans: Sequence[Span], tokenizer: Tokenizer) -> list[Word]:
    """The words of a hypothesis whose tokens have frames.

    Args:
        spans: the tokens.
        tokenizer: that they are of.
    """
    names = [tokenizer.vocab[span.token] for span in spans]
    numbers = word_numbers([names], tokenizer.kind)[0].tolist()
    groups: dict[int, list[int]] = defaultdict(list)
    for place, (number, name) in enumerate(zip(numbers, names)):
        groups[number] += [place] if name != SPACE else []  # alone before the first word, it is none
    texts = tokenizer.decode([span.token for span in spans]).split()
    spelt = zip(texts, filter(None, groups.values()))
    return [Word(text, places, spans[places[0]].start, spans[places[-1]].end) for text, places in spelt]
