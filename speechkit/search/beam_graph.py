"""Which tokens may follow a hypothesis: the edges of a lexicon's trie, or every token.

Both graphs know nodes; node `dead` has no edges. They list the candidates of a whole batch of beams
as flat arrays, so that the number of numpy calls a frame does not depend on how many there are.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from speechkit.search.lexicon import Trie


class Candidates(NamedTuple):
    """Extensions of hypotheses by one token, in the order of their parents' slots.

    Attributes:
        parent: `(C,)` slot of the hypothesis.
        place: `(C,)` number of the edge among its parent's edges: two extensions of a parent are the same
            prefix exactly when their places are equal.
        token: `(C,)` token id.
        target: `(C,)` node that it leads to.
        unit: `(C,)` unit (word or token) that it completes, or -1.
        prob: `(C,)` probability of the token in this frame.
    """

    parent: np.ndarray
    place: np.ndarray
    token: np.ndarray
    target: np.ndarray
    unit: np.ndarray
    prob: np.ndarray


class Graph(Protocol):
    """What the search asks of a graph."""

    root: int
    dead: int

    def promise(self, bound: np.ndarray, look: np.ndarray) -> np.ndarray:
        """`(nodes,)` upper bound of what any edge of a node adds to a hypothesis, beside CTC.

        Args:
            bound: `(U,)` of each unit's score.
            look: `(nodes,)` what each node promises.
        """

    def expand(
        self, node: np.ndarray, probs: np.ndarray, need: np.ndarray, known: tuple[np.ndarray, np.ndarray]
    ) -> Candidates:
        """Extensions of all hypotheses in one frame.

        Args:
            node: `(B*K,)` nodes.
            probs: `(B, V)` probabilities of the frame.
            need: `(B*K,)` tokens below it are not followed; above 1 where nothing is.
            known: `(slots of parents, places)` of extensions to leave out: they are in the beam.
        """

    def last_units(self, node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs `(index into node, unit)`: where an utterance may end, and the unit this completes or -1."""


def _ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For row i repeated counts[i] times: the row numbers, and where each row begins."""
    ends = np.cumsum(counts)
    return np.repeat(np.arange(len(counts)), counts), ends - counts


class TrieGraph:
    """The trie of a lexicon; units are words, or tokens when `token_units` is set."""

    def __init__(self, trie: Trie, token_units: bool = False) -> None:
        self.root, self.dead = 0, len(trie)
        self.first = np.append(trie.first, 0)
        self.count = np.append(trie.count, 0)
        self.token, self.target, self.word = trie.token, trie.target, trie.word
        self.unit = trie.token if token_units else trie.word
        self.source, self._ends = trie.source, _separated_ends(trie)

    def promise(self, bound: np.ndarray, look: np.ndarray) -> np.ndarray:
        """See `Graph.promise`."""
        edge = look[self.target] + np.where(self.unit >= 0, bound[np.maximum(self.unit, 0)], 0.0)
        best = np.full(self.dead + 1, -np.inf)
        np.maximum.at(best, self.source, edge)
        return best

    def expand(
        self, node: np.ndarray, probs: np.ndarray, need: np.ndarray, known: tuple[np.ndarray, np.ndarray]
    ) -> Candidates:
        """See `Graph.expand`."""
        vocab, beam = probs.shape[1], len(node) // len(probs)
        counts = np.where(need <= 1, self.count.take(node), 0)
        parent, start = _ragged(counts)
        edge = np.arange(len(parent)) + (self.first.take(node) - start).take(parent)
        token = self.token.take(edge)
        prob = probs.ravel().take(parent // beam * vocab + token)
        keep = prob >= need.take(parent)
        parents, places = known
        expanded = (counts.take(parents) > 0).nonzero()[0]
        keep[start.take(parents.take(expanded)) + places.take(expanded)] = False
        keep = keep.nonzero()[0]
        parent, edge = parent.take(keep), edge.take(keep)
        place = edge - self.first.take(node.take(parent))
        return Candidates(
            parent, place, token.take(keep), self.target.take(edge), self.unit.take(edge), prob.take(keep)
        )

    def last_units(self, node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Graph.last_units`: at the root words are complete; elsewhere a separator may be missing."""
        complete = np.flatnonzero(node == self.root)
        if self._ends is None:
            return complete, np.full(len(complete), -1)
        first, count, word = self._ends
        index, start = _ragged(count.take(node))
        place = np.arange(len(index)) + np.repeat(first.take(node) - start, count.take(node))
        units = np.append(np.full(len(complete), -1), word.take(place))
        return np.append(complete, index), units


def _separated_ends(trie: Trie) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Per node, the words that only a separator is missing from: `(first, count)` into `word`."""
    if trie.separator is None:
        return None
    ends = np.flatnonzero(trie.word >= 0)  # with a separator every completing edge carries it
    count = np.append(np.bincount(trie.source[ends], minlength=len(trie)), 0)
    return np.cumsum(count) - count, count, trie.word[ends]


class TokenGraph:
    """Any token may follow any other.

    Args:
        blank: never an extension.
        token_units: tokens are units; otherwise there are none.
    """

    root, dead = 0, 1

    def __init__(self, blank: int, token_units: bool = False) -> None:
        self.blank, self.token_units = blank, token_units

    def promise(self, bound: np.ndarray, look: np.ndarray) -> np.ndarray:
        """See `Graph.promise`."""
        best = max(bound) if self.token_units else max(0.0, max(bound))
        return np.full(len(look), look.max() + best)

    def expand(
        self, node: np.ndarray, probs: np.ndarray, need: np.ndarray, known: tuple[np.ndarray, np.ndarray]
    ) -> Candidates:
        """See `Graph.expand`."""
        parent, token, prob = self._products(node, probs, need, known)
        target = np.zeros(len(parent), dtype=np.int64)
        unit = token if self.token_units else np.full(len(parent), -1)
        return Candidates(parent, token, token, target, unit, prob)

    def _products(
        self, node: np.ndarray, probs: np.ndarray, need: np.ndarray, known: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every live hypothesis with every token it may take: `(parent, token, prob)`."""
        rows, vocab = probs.shape
        beam = len(node) // rows
        need = np.where(node != self.dead, need, 2.0)
        allowed = probs >= need.reshape(rows, beam).min(1)[:, None]
        allowed[:, self.blank] = False
        row, token = allowed.nonzero()
        per_row = np.bincount(row, minlength=rows)
        row_start = np.cumsum(per_row) - per_row
        counts = np.where(need <= 1, np.repeat(per_row, beam), 0)
        parent, start = _ragged(counts)
        entry = np.arange(len(parent)) + (np.repeat(row_start, beam) - start).take(parent)
        prob = probs[row, token].take(entry)
        keep = prob >= need.take(parent)
        rank = np.zeros((rows, vocab), dtype=np.int64)
        rank[row, token] = np.arange(len(row)) - row_start[row]
        parents, places = known
        expanded = (allowed[parents // beam, places] & (counts.take(parents) > 0)).nonzero()[0]
        parents, places = parents.take(expanded), places.take(expanded)
        keep[start.take(parents) + rank[parents // beam, places]] = False
        keep = keep.nonzero()[0]
        return parent.take(keep), token.take(entry.take(keep)), prob.take(keep)

    def last_units(self, node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Graph.last_units`."""
        complete = np.flatnonzero(node != self.dead)
        return complete, np.full(len(complete), -1)


class OpenGraph(TokenGraph):
    """Any token, while a trie tells which word of a vocabulary a separator completes; others are unknown.

    Args:
        trie: spellings of the known words, with a separator.
        unknown: the unit of words outside the trie.
        allow_unknown: False forbids leaving the trie.
        vocab: number of tokens.
        blank: never an extension.
    """

    def __init__(self, trie: Trie, unknown: int, allow_unknown: bool, vocab: int, blank: int) -> None:
        super().__init__(blank)
        self.separator, self.unknown, self.allow_unknown = trie.separator, unknown, allow_unknown
        self.off, self.dead = len(trie), len(trie) + 1
        self.next = np.full((len(trie) + 2, vocab), self.off, dtype=np.int32)
        inside = trie.word < 0
        self.next[trie.source[inside], trie.token[inside]] = trie.target[inside]
        self.next[:, trie.separator] = self.root
        self.ended = np.full(len(trie) + 2, unknown)  # unit that a separator completes at each node
        self.ended[trie.source[~inside]] = trie.word[~inside]
        self.ended[self.root] = -1

    def expand(
        self, node: np.ndarray, probs: np.ndarray, need: np.ndarray, known: tuple[np.ndarray, np.ndarray]
    ) -> Candidates:
        """See `Graph.expand`."""
        parent, token, prob = self._products(node, probs, need, known)
        before = node.take(parent)
        target = self.next[before, token].astype(np.int64)
        unit = np.where(token == self.separator, self.ended.take(before), -1)
        if not self.allow_unknown:
            keep = np.flatnonzero((target != self.off) & (unit != self.unknown))
            parent, token, prob = parent.take(keep), token.take(keep), prob.take(keep)
            target, unit = target.take(keep), unit.take(keep)
        return Candidates(parent, token, token, target, unit, prob)

    def last_units(self, node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Graph.last_units`: the last word ends without a separator."""
        units = self.ended.take(node)
        complete = np.flatnonzero((node != self.dead) & (self.allow_unknown | (units != self.unknown)))
        return complete, units[complete]
