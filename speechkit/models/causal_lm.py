"""A neural language model of tokens, which beam searches add to a recogniser's scores (`--lm` its folder).

It learns from text sets, and from the transcripts of any data directory, in the recogniser's tokens. The
network is one that transducers have for their labels: LSTMs (Mikolov et al., 2010; Sundermeyer et al., 2012),
a convolution over the last few tokens, as Bengio et al. (2003) had it, or a Transformer that sees the last
ones (Vaswani et al., 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.config import check_range, kind, load_kind
from speechkit.data.batch import Batch
from speechkit.decoders.prediction import PREDICTIONS
from speechkit.errors import InputError
from speechkit.layers.masks import padding_mask
from speechkit.lm.neural import NeuralLm
from speechkit.losses.token_cross_entropy import IGNORE, token_cross_entropy
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import Tokenizer


@dataclass
class Config:
    """A neural language model."""

    name: str = "causal_lm"
    """The model's kind."""

    network: Any = kind(PREDICTIONS, "lstm")
    """What reads the tokens, chosen by its `name`."""

    dropout: float = 0.1
    """Probability of dropping a value before the output layer."""

    def __post_init__(self) -> None:
        check_range("dropout", self.dropout, 0, 1, open_high=True)


class CausalLm(nn.Module):
    """A network of tokens and its output layer.

    Term: `lm`, the cross entropy of a token or of a sentence's end. Watched: `accuracy`. On the dev set
    `perplexity` too, of a token, ends of sentences included.

    Args:
        config: see `Config`.
        tokenizer: of the tokens.
    """

    requires = inputs = ()
    text_requires = ("tokens",)
    input_dim = None

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        super().__init__()
        size = len(tokenizer.vocab)
        self.eos = tokenizer.eos
        self.network = load_kind(PREDICTIONS, config.network.name).build(config.network, size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.network.output_dim, size)
        self.weights = {"lm": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Tokens and ends of sentences."""
        said = int(batch["tokens"].lengths.sum()) + len(batch)
        return {"lm": said, "accuracy": said}

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser."""
        tokens, answers = batch["tokens"], []
        size = tokens.values.size(1)
        known = tokens.values.masked_fill(padding_mask(tokens.lengths, size), self.eos)
        targets = F.pad(known, (0, 1), value=self.eos)
        targets = targets.masked_fill(padding_mask(tokens.lengths + 1, size + 1), IGNORE)

        def logits(states: Tensor) -> Tensor:
            values = self.output(self.dropout(states))
            answers.append(values.detach().argmax(-1))
            return values

        loss = token_cross_entropy(self.network(known), targets, logits)
        right = (answers[0] == targets[targets != IGNORE]).sum()
        counts = self.counts(batch)
        return {"lm": (loss, counts["lm"]), "accuracy": (right, counts["accuracy"])}

    def derive(self, values: dict[str, float]) -> dict[str, float]:
        """`perplexity`, from the mean terms of the dev set."""
        return {"perplexity": math.exp(min(values["lm"], 700.0))}

    def for_search(self) -> NeuralLm:
        """What beam searches ask."""
        return NeuralLm(self.network, self.output, self.eos)

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Nothing: there is no speech to recognise."""
        return {}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` states of sentences of so many tokens: one more."""
        return lengths + 1

    def set_update(self, update: int) -> None:
        """Nothing in this system follows a schedule."""


def build(config: Config, assets: Assets) -> CausalLm:
    """The model, with random weights.

    Raises:
        InputError: no tokenizer.
    """
    if assets.tokenizer is None:
        raise InputError("model causal_lm: needs a tokenizer, that of the recogniser; give --tokenizer")
    return CausalLm(config, assets.tokenizer)
