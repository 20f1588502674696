"""The words of a vocabulary as CTC spells them, in one prefix tree: how well each fits, and the best row.

A node stands for a label and has the blank after it beside it: the states of CTC (Graves et al., 2006),
shared by all words that begin alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FLOOR = -30.0
"""Natural logarithm below the best word of a stretch of frames at which all others end."""


class Found(NamedTuple):
    """A word of the best row.

    Attributes:
        word: its number.
        start: its first frame.
        end: the frame after its last.
    """

    word: int
    start: int
    end: int


class WordTree:
    """A prefix tree in arrays; node 0 is the root.

    Args:
        spellings: tokens of each word; None or nothing for one that cannot be spelt.
        separator: token that stands between words.
        blank: id of the blank.

    Attributes:
        parent, token: `(K,)` of every node; the root is its own parent.
        last: `(W,)` node at which each word ends, the root for one that cannot be spelt.
        again: nodes whose token is their parent's too, so that only a blank leads there.
        begins: nodes where words begin.
        ends: nodes at which words end.
        word: `(K,)` the word that ends at a node (the first of those spelt alike), or -1.
    """

    def __init__(self, spellings: Sequence[Sequence[int] | None], separator: int, blank: int = 0) -> None:
        nodes: dict[tuple[int, int], int] = {}
        last = []
        for spelling in spellings:
            node = 0
            for token in spelling or ():
                node = nodes.setdefault((node, token), len(nodes) + 1)
            last.append(node)
        self.parent = np.array([0, *(parent for parent, _ in nodes)])
        self.token = np.array([blank, *(token for _, token in nodes)])
        self.last, self.separator, self.blank = np.array(last, dtype=np.int64), separator, blank
        self.again = np.flatnonzero(self.token == self.token[self.parent])  # after a blank only; the root too
        self.begins = np.flatnonzero(self.parent == 0)
        self.ends = np.unique(self.last[self.last > 0])
        self.word = np.full(len(self.parent), -1)
        self.word[self.last[::-1]] = np.arange(len(last))[::-1]  # of words spelt alike the first

    def scores(self, log_probs: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """How well each word explains stretches of frames, by the sum over all paths.

        Args:
            log_probs: `(T, V)`, of one utterance or of several, one after the other.
            starts: `(N,)` first frames.
            ends: `(N,)` the frames after the last ones.

        Returns:
            `(N, W)` float32 log-likelihoods relative to the best word's, from `FLOOR` to 0; all 0 where no
            word fits, as in a stretch of no frames.
        """
        order = np.argsort(starts - ends, kind="stable")  # longest first: those that go on are in front
        starts, sizes = starts[order], (ends - starts)[order]
        probs = np.exp(log_probs.T.astype(np.float32))  # a column a stretch: whole rows are fetched by node
        label, blank = (np.zeros((len(self.parent), len(order)), np.float32) for _ in range(2))
        blank[0] = 1.0
        totals = np.empty((len(self.last), len(order)), np.float32)
        for step in range(int(sizes.max(initial=0)) + 1):
            running = int((sizes > step).sum())
            if running < label.shape[1]:
                over = slice(running, label.shape[1])
                totals[:, over] = (label[:, over] + blank[:, over])[self.last]
                label, blank = (np.ascontiguousarray(values[:, :running]) for values in (label, blank))
            if not running:
                break
            frame = probs[:, starts[:running] + step]
            above = label.take(self.parent, 0)
            above[self.again] = 0
            above += blank.take(self.parent, 0)
            above[0] = 0
            above += label
            above *= frame.take(self.token, 0)
            label += blank
            label *= frame[self.blank]
            best = np.maximum(above.max(0), label.max(0)).clip(1e-30)
            label, blank = np.divide(above, best, out=above), np.divide(label, best, out=label)
        return _relative(totals.T, self.last > 0)[np.argsort(order)]

    def best_rows(self, log_probs: np.ndarray, lengths: np.ndarray, price: float) -> list[list[Found]]:
        """The most probable row of words of each utterance, along its best path (Viterbi).

        Args:
            log_probs: `(B, T, V)` natural logarithms.
            lengths: `(B,)` frames.
            price: subtracted for every word.
        """
        search, frames = _Search(self, len(log_probs), price), log_probs.transpose(1, 2, 0)
        rows: list[list[Found]] = [[] for _ in log_probs]
        for time in range(int(lengths.max(initial=-1)) + 1):
            search.leave()
            for row in np.flatnonzero(lengths == time):
                rows[row] = search.trace(int(row))
            if time < lengths.max():
                search.step(frames[time].astype(np.float32, order="C"))
        return rows


def _relative(totals: np.ndarray, spelt: np.ndarray) -> np.ndarray:
    """Logarithms relative to the best word, of those that can be spelt."""
    totals = np.where(spelt, totals, 0)
    best = totals.max(1, keepdims=True, initial=0)
    with np.errstate(divide="ignore"):
        logs = np.log(totals / best.clip(1e-30)).clip(FLOOR)
    return np.where(best > 0, logs, 0).astype(np.float32)


class _Search:
    """Token passing through the tree, again and again; every state carries the frame where its word began.

    Between words stand three states: nothing yet, the separator, and the blank after it. `words` has, for
    every time, the word that had best end there and its start; `before` the time at which the one before a
    word that begins there ended, -1 for none.
    """

    def __init__(self, tree: WordTree, rows: int, price: float) -> None:
        self.tree, self.price, self.rows = tree, price, np.arange(rows)
        shape = (len(tree.parent), rows)  # a column an utterance: whole rows are fetched by node
        self.label, self.blank = (np.full(shape, -np.inf, np.float32) for _ in range(2))
        self.label_from, self.blank_from = (np.zeros(shape, np.int32) for _ in range(2))
        self.between = np.tile(np.array([[0], [-np.inf], [-np.inf]], np.float32), rows)
        self.after = np.full((3, rows), -1, np.int32)
        self.ended = np.full(rows, -np.inf, np.float32)
        self.words: list[tuple[np.ndarray, np.ndarray]] = []
        self.before: list[np.ndarray] = []

    def leave(self) -> None:
        """Looks for the best word that can end before this frame."""
        ends = self.tree.ends
        label, blank = self.label.take(ends, 0), self.blank.take(ends, 0)
        best = np.maximum(label, blank).argmax(0)
        label, blank, node = label[best, self.rows], blank[best, self.rows], ends[best]
        start = np.where(blank >= label, self.blank_from[node, self.rows], self.label_from[node, self.rows])
        self.ended = np.maximum(label, blank) - np.float32(self.price)
        self.words.append((self.tree.word[node], start))

    def step(self, frame: np.ndarray) -> None:
        """Takes a frame, `(V, B)`."""
        tree, silent = self.tree, frame[self.tree.blank]
        label, label_from = self._enter()
        np.copyto(self.blank_from, self.label_from, where=self.label > self.blank)
        np.maximum(self.blank, self.label, out=self.blank)
        self.blank += silent
        label += frame.take(tree.token, 0)
        self.label, self.label_from = label, label_from
        nothing, separator, blank = self.between
        self.after[2] = np.where(blank >= separator, self.after[2], self.after[1])
        self.after[1] = np.where(self.ended > separator, len(self.words) - 1, self.after[1])
        separated = np.maximum(separator, self.ended) + frame[tree.separator]
        self.between = np.stack([nothing + silent, separated, np.maximum(blank, separator) + silent])

    def _enter(self) -> tuple[np.ndarray, np.ndarray]:
        """The labels before this frame is heard, from above or as they were; and where their words began."""
        tree, which = self.tree, self.between.argmax(0)
        above, silent = self.label.take(tree.parent, 0), self.blank.take(tree.parent, 0)
        above[tree.again] = -np.inf
        above_from = self.label_from.take(tree.parent, 0)
        np.copyto(above_from, self.blank_from.take(tree.parent, 0), where=silent >= above)
        np.maximum(above, silent, out=above)
        above[tree.begins] = self.between[which, self.rows]
        above_from[tree.begins] = len(self.before)
        above[0] = -np.inf
        self.before.append(self.after[which, self.rows])
        np.copyto(above_from, self.label_from, where=self.label >= above)
        return np.maximum(above, self.label, out=above), above_from

    def trace(self, row: int) -> list[Found]:
        """Words of an utterance that is over."""
        which = int(self.between[:, row].argmax())
        inside = self.ended[row] > self.between[which, row]
        time = len(self.words) - 1 if inside else int(self.after[which, row])
        found = []
        while time >= 0:
            word, start = (int(values[row]) for values in self.words[time])
            found.append(Found(word, start, time))
            time = int(self.before[start][row])
        return found[::-1]
