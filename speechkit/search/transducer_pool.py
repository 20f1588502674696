"""What networks know of the label sequences of a transducer's beam: rows that many hypotheses may share."""

from __future__ import annotations

import torch
from torch import Tensor

from speechkit.decoders.prediction import Memory
from speechkit.lm.neural import NeuralLm
from speechkit.search.transducer_networks import Networks


class Pool:
    """States of P label sequences; at first of the one without labels.

    Args:
        networks: of the transducer.
        lm: a neural language model, or None.
        weight: factor of its natural log probability.

    Attributes:
        states: `(P, J)` of the prediction network, projected to the joint network.
        scores: `(P, V)` weighted scores of what the language model expects next; None without one.
    """

    def __init__(self, networks: Networks, lm: NeuralLm | None, weight: float) -> None:
        self.networks, self.lm, self.weight = networks, lm, weight
        self.states, self._memory = networks.start(1)
        self.scores: Tensor | None = None
        self._known: Memory = ()
        if lm is not None:
            log_probs, self._known = lm.start(1)
            self.scores = log_probs * weight

    def __len__(self) -> int:
        return len(self.states)

    def grow(self, places: Tensor, tokens: Tensor) -> Tensor:
        """Adds the sequences at `(N,)` places, each with one of `(N,)` tokens more; `(N,)` their places."""
        first = len(self)
        states, memory = self.networks.step(tokens, _take(self._memory, places))
        self.states, self._memory = torch.cat([self.states, states]), _join(self._memory, memory)
        if self.lm is not None:
            log_probs, known = self.lm.step(tokens, _take(self._known, places))
            self.scores = torch.cat([self.scores, log_probs * self.weight])
            self._known = _join(self._known, known)
        return torch.arange(first, len(self), device=places.device)

    def shrink(self, places: Tensor) -> Tensor:
        """Leaves only the sequences at these places; where these are now."""
        used, moved = torch.unique(places, return_inverse=True)
        self.states, self._memory = self.states.index_select(0, used), _take(self._memory, used)
        if self.scores is not None:
            self.scores, self._known = self.scores.index_select(0, used), _take(self._known, used)
        return moved

    def expected(self, places: Tensor, tokens: Tensor) -> Tensor | float:
        """Weighted scores of the language model for `(N, K)` tokens after the sequences at `(N,)` places."""
        if self.scores is None:
            return 0.0
        return self.scores.take(places[:, None] * self.scores.size(1) + tokens).double()


def _take(memory: Memory, places: Tensor) -> Memory:
    return tuple(part.index_select(0, places) for part in memory)


def _join(before: Memory, after: Memory) -> Memory:
    return tuple(torch.cat(pair) for pair in zip(before, after))
