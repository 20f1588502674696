"""Beam search of a transducer, with a language model of its tokens where one is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.search.ctc_beam import SPECIAL_TOKENS
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.transducer_beam import TransducerBeam, TransducerBeamConfig


@dataclass
class Config(TransducerBeamConfig):
    """Options of the beam search; the language model counts only where one is given."""

    name: str = "transducer_beam"
    """The search's kind."""
    head: str = "transducer"
    """The model head to read."""


class Beam:
    """Transducer beam search."""

    def __init__(self, config: Config, resources: Resources) -> None:
        if resources.lexicon_path:
            raise InputError(
                "the search transducer_beam takes no --lexicon; its units are the model's tokens"
            )
        self.head, self.model, self.tokenizer = config.head, resources.model, resources.assets.tokenizer
        vocab, blank = self.tokenizer.vocab, self.tokenizer.blank
        never = [i for i, token in enumerate(vocab) if token in SPECIAL_TOKENS and i != blank]
        ngram, neural = resources.token_lm()
        self.beam = TransducerBeam(config, vocab, ngram, blank, tuple(never), neural)

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        found = self.beam(self.model, *heads[self.head])
        return [[replace(h, words=self.tokenizer.decode(h.tokens).split()) for h in nbest] for nbest in found]

    def text(self, hypothesis: Hypothesis) -> str:
        """What the tokens spell."""
        return " ".join(hypothesis.words)


def build(config: Config, resources: Resources) -> Beam:
    """The beam search for a model."""
    resources.refuse_bert(config.name)
    return Beam(config, resources)
