"""Words of tokens with frames, for every kind of tokenizer."""

import pytest

from speechkit.search.greedy import Span
from speechkit.search.word_spans import Word, words_of
from speechkit.text.tokenizer import build_tokenizer

TEXTS = ["ab c abc", "c ab"]


def spans(tokenizer, text):
    """Token number i stands in frames 3 i and 3 i + 1."""
    return [Span(token, 3 * i, 3 * i + 2) for i, token in enumerate(tokenizer.encode(text))]


def test_characters_and_the_spaces_between_them():
    tokenizer = build_tokenizer("char", TEXTS)
    said = spans(tokenizer, "ab c")
    assert words_of(said, tokenizer) == [Word("ab", [0, 1], 0, 5), Word("c", [3], 9, 11)]
    space = said[2]._replace(start=0, end=1)
    assert words_of([space, *said], tokenizer) == [Word("ab", [1, 2], 0, 5), Word("c", [4], 9, 11)]
    assert words_of([], tokenizer) == words_of([space], tokenizer) == []


@pytest.mark.parametrize("kind", ["word", "char"])
def test_words_are_what_the_tokens_say(kind):
    tokenizer = build_tokenizer(kind, TEXTS)
    for text in (*TEXTS, "abc", "c c c"):
        found = words_of(spans(tokenizer, text), tokenizer)
        assert [word.text for word in found] == text.split()
        assert all(a.end <= b.start for a, b in zip(found, found[1:]))
