"""Prefix beam search on the CTC head, with an optional lexicon and n-gram model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from speechkit.decoding.resources import Resources
from speechkit.search.ctc_beam import CtcBeam, CtcBeamConfig
from speechkit.search.hypothesis import Hypothesis


@dataclass
class Config(CtcBeamConfig):
    """Options of the beam search; the language model counts only where one is given."""

    name: str = "ctc_beam"
    """The search's kind."""
    head: str = "ctc"
    """The model head to read."""
    own_language: bool = False
    """Find only phones `(xx)p` of the utterance's language xx, as utt2lang says it."""


class Beam:
    """Prefix beam search."""

    def __init__(self, config: Config, resources: Resources) -> None:
        tokenizer = resources.assets.tokenizer
        self.head, self.tokenizer = config.head, tokenizer
        self.beam = CtcBeam(config, tokenizer.vocab, resources.lexicon, resources.lm, tokenizer.blank)

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        return self.beam(*heads[self.head])

    def text(self, hypothesis: Hypothesis) -> str:
        """Words of the lexicon or, without one, what the tokens spell."""
        return " ".join(hypothesis.words) if self.beam.by_words else self.tokenizer.decode(hypothesis.tokens)


def build(config: Config, resources: Resources) -> Beam:
    """The beam search for a model."""
    resources.refuse_bert(config.name)
    return Beam(config, resources)
