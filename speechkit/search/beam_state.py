"""The beams of a batch as flat arrays, advanced one frame for all utterances at once.

Hypothesis k of utterance b lives in slot `b * K + k` and stays there while it survives; new ones take
the slots of those that fell out, so a frame touches little memory. Probabilities of the two CTC states
of a prefix (paths ending in blank, and in its last token; Graves 2008, section 7.5) are kept linear,
rescaled by powers of two, so that merging paths is an addition.

A prefix knows a 64-bit hash of itself and of its parent. When a hypothesis and its parent are both in
the beam, extending the parent is the same prefix again: its probability is added (`linked`), and the
candidate is left out.
"""

from __future__ import annotations

import numpy as np

from speechkit.search.beam_fusion import Fusion
from speechkit.search.beam_graph import Candidates, Graph

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_LOWEST = -1e300
_LOW = (1 << 20) - 1
RESCALE = 4
"""Frames between rescalings: four of the smallest float32 probabilities still fit a float64."""


def mix_hash(old: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Hash `(N,)` uint64 of a sequence from the hash of its beginning and its last value (splitmix64)."""
    mixed = (old ^ (values.astype(np.uint64) * _MIX[0])) + _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
    return mixed ^ (mixed >> np.uint64(31))


class History:
    """Every prefix that was ever in a beam: its parent, last token and completed unit."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = [np.array([[-1], [-1], [-1]])]
        self._size = 1  # entry 0 is the empty prefix

    def add(self, parent: np.ndarray, token: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Entries `(N,)` for N new prefixes."""
        self._parts.append(np.stack([parent, token, unit]))
        self._size += len(parent)
        return np.arange(self._size - len(parent), self._size)

    def columns(self) -> np.ndarray:
        """`(3, entries)`: parent, token and unit of every entry."""
        return np.concatenate(self._parts, axis=1)


class Beams:
    """Up to `beam` hypotheses of each of `batch` utterances.

    Args:
        batch, beam: sizes B and K.
        graph, fusion: see there.
        look: `(nodes,)` what a node promises of its best completion (natural log).
        blank: id of the blank.
        width: hypotheses worse than the best by more than this (natural log) are dropped.
    """

    def __init__(
        self, batch: int, beam: int, graph: Graph, fusion: Fusion, look: np.ndarray, blank: int, width: float
    ) -> None:
        self.beam, self.graph, self.fusion, self.look = beam, graph, fusion, look
        self.promise = graph.promise(fusion.bound, look)
        self.bound = np.append(fusion.bound, 0.0)  # unit -1, none, is the last
        self.blank, self.width, self.history = blank, width, History()
        slots = batch * beam
        self.prob_blank, self.prob_token = np.zeros(slots), np.zeros(slots)
        self.fused = np.zeros(slots)  # language model and bonuses so far
        self.ahead = np.zeros(slots)  # the same with what the node promises
        self.node = np.full(slots, graph.dead)
        self.last = np.full(slots, blank)
        self.state = np.full(slots, fusion.start)
        self.entry, self.place, self.parent = (np.zeros(slots, np.int64) for _ in range(3))
        self.hash, self.parent_hash = np.zeros(slots, np.uint64), np.ones(slots, np.uint64)
        self.exponent = np.zeros(batch)  # powers of two taken out of the probabilities
        self.frame = 0
        self._new = np.zeros(_LOW + 1, dtype=bool)
        first = np.arange(batch) * beam
        self.prob_blank[first], self.node[first] = 1.0, graph.root
        self.hash[first] = mix_hash(np.zeros(batch, np.uint64), np.arange(1, batch + 1))
        self._offset = np.empty(0, np.int64)

    def step(self, probs: np.ndarray, floor: np.ndarray) -> None:
        """Advances the first B' utterances by a frame.

        Args:
            probs: `(B', V)` probabilities.
            floor: `(B',)` tokens below it extend nothing.
        """
        rows, vocab = probs.shape
        size, beam = rows * self.beam, self.beam
        if len(self._offset) != size:
            self._offset = np.repeat(np.arange(rows) * vocab, beam)
        old_blank, old_token = self.prob_blank[:size], self.prob_token[:size]
        total = old_blank + old_token
        of_last = probs.ravel().take(self._offset + self.last[:size])
        blank = (total.reshape(rows, beam) * probs[:, self.blank, None]).ravel()
        token = old_token * of_last

        parent = self.parent[:size]
        linked = (self.hash.take(parent) == self.parent_hash[:size]).nonzero()[0]
        source = parent.take(linked)
        same = self.last.take(source) == self.last.take(linked)
        token[linked] += np.where(same, old_blank.take(source), total.take(source)) * of_last.take(linked)

        stay = np.log(blank + token) + self.ahead[:size]
        need, bound = self._need(stay.reshape(rows, beam), total, floor)
        found = None
        if (need <= 1).any():
            known = source, self.place.take(linked)
            found = self.graph.expand(self.node[:size], probs, need, known)
        if found is not None and len(found.parent):
            self._extend(found, stay.reshape(rows, beam), bound, total, blank, token)
        else:
            self.prob_blank[:size], self.prob_token[:size] = blank, token
        self.frame += 1
        if self.frame % RESCALE == 0:
            self._rescale(rows)

    def _need(self, stay: np.ndarray, total: np.ndarray, floor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a token's probability must be to lift an extension of each slot into the beam `(B'*K,)`.

        Also the score that no hypothesis below can be among the K best with `(B',)`: a full beam keeps at
        least its worst old prefix's score.
        """
        bound = np.maximum(np.maximum(stay.min(1), stay.max(1) - self.width), _LOWEST)
        hope = self.fused[: stay.size] + self.promise.take(self.node[: stay.size])
        # A little less than that: rounding must not lose what the exact comparison later lets in.
        need = np.exp(np.repeat(bound, self.beam) - hope - np.log(total) - 1e-9)
        return np.fmax(np.repeat(floor, self.beam), need), bound

    def _extend(
        self,
        found: Candidates,
        stay: np.ndarray,
        bound: np.ndarray,
        total: np.ndarray,
        blank: np.ndarray,
        token: np.ndarray,
    ) -> None:
        """Chooses the best of the old prefixes, with scores `stay (B', K)`, and their extensions."""
        rows, beam = stay.shape
        size, parent = rows * beam, found.parent
        before = np.where(
            found.token == self.last.take(parent), self.prob_blank.take(parent), total.take(parent)
        )
        value = before * found.prob
        log_value = np.log(value)
        fused, ahead = self.fused.take(parent), self.look.take(found.target)
        optimistic = self.bound.take(found.unit) + ahead
        keep = (log_value + fused + optimistic >= bound.take(parent // beam)).nonzero()[0]
        found = Candidates(*(column.take(keep) for column in found))
        value, log_value, fused, ahead = (x.take(keep) for x in (value, log_value, fused, ahead))
        state = self.state.take(found.parent)
        done = (found.unit >= 0).nonzero()[0]
        if done.size:
            gain, state[done] = self.fusion.score(state.take(done), found.unit.take(done))
            fused[done] += gain
        score = log_value + fused + ahead
        chosen, kept = _select(stay, score, found.parent // beam, bound, self.width)
        found = Candidates(*(column.take(chosen) for column in found))
        inherited = self.hash.take(found.parent), self.entry.take(found.parent)
        freed = self._drop(kept.ravel(), blank, token)
        if chosen.size:
            slot = freed[_nth_free(kept, found.parent // beam)]
            columns = (value, fused, fused + ahead, state)
            self._insert(slot, found, inherited, *(column.take(chosen) for column in columns))
            self._adopt(slot, size)

    def _drop(self, kept: np.ndarray, blank: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Sets the probabilities of old prefixes; returns the freed slots."""
        self.prob_blank[: len(kept)], self.prob_token[: len(kept)] = blank * kept, token * kept
        freed = (~kept).nonzero()[0]
        self.node[freed] = self.graph.dead
        self.parent_hash[freed], self.hash[freed] = 1, 0  # equal to no hash that occurs
        return freed

    def _insert(
        self,
        slot: np.ndarray,
        found: Candidates,
        inherited: tuple[np.ndarray, np.ndarray],
        value: np.ndarray,
        fused: np.ndarray,
        ahead: np.ndarray,
        state: np.ndarray,
    ) -> None:
        """Writes new prefixes into free slots."""
        parent_hash, parent_entry = inherited
        self.prob_token[slot] = value
        self.fused[slot], self.ahead[slot], self.state[slot] = fused, ahead, state
        self.node[slot], self.last[slot] = found.target, found.token
        self.entry[slot] = self.history.add(parent_entry, found.token, found.unit)
        self.parent[slot], self.place[slot] = found.parent, found.place
        self.parent_hash[slot] = parent_hash
        self.hash[slot] = mix_hash(parent_hash, found.place + 1)

    def _adopt(self, slot: np.ndarray, size: int) -> None:
        """Links prefixes whose parent fell out of the beam earlier and has just come back."""
        new = self.hash.take(slot)
        low = (new & np.uint64(_LOW)).view(np.int64)
        self._new[low] = True
        wanted = self.parent_hash[:size]
        maybe = (self._new.take((wanted & np.uint64(_LOW)).view(np.int64))).nonzero()[0]
        self._new[low] = False
        if maybe.size:
            order = np.argsort(new)
            place = order[np.searchsorted(new, wanted[maybe], sorter=order).clip(max=len(new) - 1)]
            found = new[place] == wanted[maybe]
            self.parent[maybe[found]] = slot[place[found]]

    def _rescale(self, rows: int) -> None:
        """Divides each utterance's probabilities by a power of two, which loses no digit."""
        size = rows * self.beam
        best = (self.prob_blank[:size] + self.prob_token[:size]).reshape(rows, self.beam).max(1)
        power = np.frexp(best)[1]
        factor = np.repeat(np.ldexp(1.0, -power), self.beam)
        self.prob_blank[:size] *= factor
        self.prob_token[:size] *= factor
        self.exponent[:rows] += power

    def log_probs(self) -> np.ndarray:
        """`(B, K)` natural log of each prefix's CTC probability."""
        total = (self.prob_blank + self.prob_token).reshape(-1, self.beam)
        return np.log(total) + self.exponent[:, None] * np.log(2.0)


def _rank(row: np.ndarray, rows: int) -> np.ndarray:
    """Number of each element among those of its row; `row` is sorted."""
    counts = np.bincount(row, minlength=rows)
    return np.arange(len(row)) - (np.cumsum(counts) - counts)[row]


def _nth_free(kept: np.ndarray, row: np.ndarray) -> np.ndarray:
    """For new prefixes sorted by row, positions in the list of all free slots."""
    free = kept.shape[1] - kept.sum(1)
    return (np.cumsum(free) - free)[row] + _rank(row, len(kept))


def _select(
    stay: np.ndarray, score: np.ndarray, row: np.ndarray, bound: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """The K best of each row among old prefixes and candidates.

    Args:
        stay: `(B', K)` scores of old prefixes, -inf for free slots.
        score: `(C,)` scores of the candidates, sorted by row.
        row: `(C,)` their rows.
        bound: `(B',)` nothing below it can be among the K best.
        width: largest distance to the best.

    Returns:
        Indices of the chosen candidates, and which old prefixes stay `(B', K)`. Among equals at the
        edge of the beam old prefixes go first, then candidates in their order.
    """
    rows, beam = stay.shape
    good = (score >= bound.take(row)).nonzero()[0]
    row, score = row.take(good), score.take(good)
    rank = _rank(row, rows)
    longest = int(rank.max(initial=-1)) + 1
    table = np.full((rows, beam + longest), -np.inf)
    table[:, :beam] = stay
    table[row, beam + rank] = score
    cut = np.maximum(table.max(1) - width, _LOWEST)
    if longest:
        cut = np.maximum(cut, np.partition(table, longest, axis=1)[:, longest])
    chosen = table >= cut[:, None]
    for crowded in np.flatnonzero(chosen.sum(1) > beam):
        ties = (table[crowded] == cut[crowded]).nonzero()[0]
        surplus = int(chosen[crowded].sum()) - beam
        chosen[crowded, ties[len(ties) - surplus :]] = False
    return good[chosen[row, beam + rank]], chosen[:, :beam]
