"""A neural language model as searches ask it: many hypotheses at once, a token at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.decoders.prediction import Memory, Prediction


class NeuralLm:
    """Says what may come after each of N token sequences.

    Args:
        network: reads the tokens, see `speechkit.decoders.prediction`.
        output: its output layer, `(N, D)` to `(N, V)` logits.
        eos: id of <sos/eos>, the end of a sentence.
    """

    def __init__(self, network: Prediction, output: nn.Module, eos: int) -> None:
        self.network, self.output, self.eos = network, output, eos

    def start(self, count: int) -> tuple[Tensor, Memory]:
        """`(N, V)` log-probabilities in fp32 at least of what comes first, and memories."""
        states, memory = self.network.start(count)
        return self._log_probs(states), memory

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The same after one more token each, `(N,)`."""
        states, memory = self.network.step(tokens, memory)
        return self._log_probs(states), memory

    def _log_probs(self, states: Tensor) -> Tensor:
        logits = self.output(states)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


class LmReading:
    """A language model that reads the hypotheses of one search, as `speechkit.search.attention_beam` asks."""

    def __init__(self, lm: NeuralLm) -> None:
        self.lm = lm
        self.memory: Memory | None = None

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """`(N, V)` log-probabilities of what follows; see `speechkit.search.attention_beam.Steps`."""
        if self.memory is None:  # <sos> is not read: the network begins by itself
            log_probs, self.memory = self.lm.start(len(tokens))
        else:
            before = tuple(part.index_select(0, rows) for part in self.memory)
            log_probs, self.memory = self.lm.step(tokens, before)
        return log_probs

    def keep(self, utterances: Tensor) -> None:
        """Nothing: what is remembered belongs to hypotheses, not to utterances."""
