"""A lexicon: words, and how each is spelt in tokens; and its trie as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from speechkit.errors import InputError, Problem, ProblemsError

SEPARATOR = "▁"
"""The token between words where spellings do not mark their own beginning or end."""


class Encoder(Protocol):
    """What `Lexicon.from_words` asks of a tokenizer."""

    vocab: list[str]
    unk: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""


@dataclass
class Lexicon:
    """Words and their spellings.

    Attributes:
        words: distinct words.
        spellings: `(index into words, token ids)`, any number for a word.
        separator: id of the token that stands between words, or None when spellings run on.
        dropped: words left out because a token of theirs is outside the vocabulary.
    """

    words: list[str]
    spellings: list[tuple[int, tuple[int, ...]]]
    separator: int | None = None
    dropped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.spellings:
            about = (
                f"all {len(self.dropped)} words need tokens outside the vocabulary"
                if self.dropped
                else "no words"
            )
            raise InputError(f"the lexicon is empty: {about}")

    @classmethod
    def from_words(cls, words: Iterable[str], tokenizer: Encoder) -> Lexicon:
        """Spells words with a tokenizer.

        A separator is found by encoding two words together: a character tokenizer puts `▁` between
        them, pieces that mark the beginning of a word put nothing.

        Raises:
            InputError: no word can be spelt, or two words together are spelt differently than apart.
        """
        words = list(dict.fromkeys(words))
        encoded = [tuple(tokenizer.encode(word)) for word in words]
        good = [i for i, ids in enumerate(encoded) if ids and tokenizer.unk not in ids]
        dropped = [word for word, ids in zip(words, encoded) if not ids or tokenizer.unk in ids]
        separator = None
        if good:
            first = good[0]
            both = tokenizer.encode(f"{words[first]} {words[first]}")
            between = both[len(encoded[first]) : len(both) - len(encoded[first])]
            if [*encoded[first], *between, *encoded[first]] != both or len(between) > 1:
                raise InputError(
                    f"'{words[first]}' twice is not spelt as its spelling twice; give a lexicon file instead"
                )
            separator = between[0] if between else None
        spellings = [(number, encoded[i]) for number, i in enumerate(good)]
        return cls([words[i] for i in good], spellings, separator, dropped)


def read_lexicon(path: str | Path, vocab: Sequence[str]) -> Lexicon:
    """Reads `word token token ...` lines.

    Words with a token outside the vocabulary are left out and listed in `dropped`. When the vocabulary
    has the token `▁` and no spelling uses it or a token that begins with it, `▁` is the separator.

    Args:
        path: UTF-8 file; blank lines are skipped; a word may have several lines.
        vocab: token of every id.

    Raises:
        InputError: missing file, not UTF-8, or no usable word.
        ProblemsError: lines without a spelling, or the same line twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such lexicon") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 (byte {error.start})") from None
    ids = {token: number for number, token in enumerate(vocab)}
    words: dict[str, int] = {}
    spellings: dict[tuple[int, tuple[int, ...]], None] = {}
    dropped: list[str] = []
    problems: list[Problem] = []
    marked = False
    for number, line in enumerate(text.split("\n"), start=1):
        word, *tokens = line.split() or [""]
        if word and not tokens:
            problems.append(Problem(str(path), number, "a word without a spelling", word))
        elif tokens and all(token in ids for token in tokens):
            marked = marked or any(token.startswith(SEPARATOR) for token in tokens)
            spelling = (words.setdefault(word, len(words)), tuple(ids[token] for token in tokens))
            if spelling in spellings:
                problems.append(Problem(str(path), number, "this spelling is listed twice", line.strip()))
            spellings[spelling] = None
        elif tokens:
            dropped.append(word)
    if problems:
        raise ProblemsError(problems)
    separator = ids.get(SEPARATOR) if not marked else None
    try:
        return Lexicon(list(words), list(spellings), separator, dropped)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


class Trie:
    """The spellings as a prefix tree in arrays; node 0 is the root, between two words.

    Every node has a contiguous run of edges. An edge either goes down to a child, or completes a word
    and returns to the root; where a spelling is also the beginning of another, its last token has
    both kinds of edge. With a separator, spellings end in it.

    Args:
        lexicon: the words.

    Attributes:
        first, count: `(N,)` a node's first edge and its number of edges.
        source, token, target, word: `(E,)` the node an edge leaves, its token, the node it leads to, and
            the word it completes or -1.
        parent: `(N,)` node above.
        last: `(N,)` token that leads to the node, -1 for the root.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        tail = () if lexicon.separator is None else (lexicon.separator,)
        children: list[dict[int, int]] = [{}]
        parent, last = [0], [-1]
        ends: list[tuple[int, int, int]] = []  # node, token, word
        for word, spelling in lexicon.spellings:
            *path, final = (*spelling, *tail)
            node = 0
            for token in path:
                below = children[node].get(token)
                if below is None:
                    below = children[node][token] = len(children)
                    children.append({})
                    parent.append(node)
                    last.append(token)
                node = below
            ends.append((node, final, word))
        edges = [
            (node, token, below, -1) for node, row in enumerate(children) for token, below in row.items()
        ]
        edges += [(node, token, 0, word) for node, token, word in ends]
        edges.sort()
        source, *columns = np.array(edges, dtype=np.int64).T
        self.token, self.target, self.word = columns
        self.count = np.bincount(source, minlength=len(children))
        self.first = np.cumsum(self.count) - self.count
        self.source, self.parent, self.last = source, np.array(parent), np.array(last)
        self.separator = lexicon.separator

    def __len__(self) -> int:
        return len(self.parent)

    def best_below(self, word_scores: np.ndarray) -> np.ndarray:
        """`(N,)` the best score of any word that can still be completed from a node."""
        best = np.full(len(self), -np.inf)
        ends = self.word >= 0
        np.maximum.at(best, self.source[ends], word_scores[self.word[ends]])
        for node in range(len(self) - 1, 0, -1):  # children have higher numbers than their parents
            above = self.parent[node]
            best[above] = max(best[above], best[node])
        return best
