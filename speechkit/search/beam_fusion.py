"""Language-model scores of the units (words or tokens) that hypotheses complete, in natural logarithms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechkit.lm.ngram import NgramLM

LN10 = float(np.log(10.0))


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
        log10, states = self.lm.advance(states, self.ids.take(units))
        return log10 * self.weight + self.extra.take(units), states

    def finish(self, states: np.ndarray) -> np.ndarray:
        """Scores `(N,)` of the end of the sentence."""
        if self.lm is None or not self.end:
            return np.zeros(len(states))
        return self.lm.advance(states, np.full(len(states), self.lm.eos))[0] * self.weight
