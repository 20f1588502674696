"""Language-model scores of the units (words or tokens) that hypotheses complete, in natural logarithms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechkit.lm.ngram import NgramLM

LN10 = float(np.log(10.0))
CACHE_BITS = 16
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio, for Knuth's multiplicative hashing."""


class Fusion:
    """Scores completed units: `weight * ln p(unit | context) + bonus`, and `unk_score` for unknown ones.

    Args:
        lm: the model, or None for the bonus alone.
        units: text of every unit; a completed unit is an index into it.
        weight: of the natural log probability.
        bonus: added for each unit.
        unk_score: added for units that the model does not know; -inf forbids them.
        end: score the end of the sentence.

    Attributes:
        start: the state of an empty hypothesis.
        bound: `(U,)` upper bound of each unit's score in any context.
        alone: `(U,)` each unit's score without context.
    """

    def __init__(
        self,
        lm: NgramLM | None,
        units: Sequence[str],
        weight: float,
        bonus: float,
        unk_score: float,
        end: bool,
    ) -> None:
        self.lm, self.weight, self.start = lm, weight * LN10, 0
        self.extra = np.full(len(units), float(bonus))
        # Recent scores by (state, unit), one for each hash: a hypothesis asks the same every frame.
        self._keys = np.full(1 << CACHE_BITS, -1)
        self._values, self._states = np.zeros(1 << CACHE_BITS), np.zeros(1 << CACHE_BITS, dtype=np.int64)
        self.bound = self.alone = self.extra
        if lm is None:
            return
        self.start, self.end = lm.begin, end
        self.ids = lm.ids(units)
        self.extra[self.ids == lm.unk] += unk_score
        self.bound = self.extra + self.weight * lm.best_log10()[self.ids]
        self.alone = self.extra + self.weight * lm.levels[0].log10.astype(float)[self.ids]

    def score(self, states: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores `(N,)` and new states `(N,)` of hypotheses that complete `units`."""
        if self.lm is None:
            return self.extra.take(units), states
        keys = states * len(self.extra) + units
        slots = (keys.view(np.uint64) * GOLDEN >> np.uint64(64 - CACHE_BITS)).view(np.int64)
        missing = (self._keys.take(slots) != keys).nonzero()[0]
        if not missing.size:
            return self._values.take(slots), self._states.take(slots)
        log10, new = self.lm.advance(states.take(missing), self.ids.take(units.take(missing)))
        values, states = self._values.take(slots), self._states.take(slots)
        values[missing] = scores = log10 * self.weight + self.extra.take(units.take(missing))
        states[missing] = new
        slots, keys = slots.take(missing), keys.take(missing)
        self._keys[slots], self._values[slots], self._states[slots] = keys, scores, new
        return values, states

    def finish(self, states: np.ndarray) -> np.ndarray:
        """Scores `(N,)` of the end of the sentence."""
        if self.lm is None or not self.end:
            return np.zeros(len(states))
        return self.lm.advance(states, np.full(len(states), self.lm.eos))[0] * self.weight
