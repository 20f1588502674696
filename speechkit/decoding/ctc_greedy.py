"""The best path of the CTC head, collapsed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.search.greedy import ctc_greedy
from speechkit.search.hypothesis import Hypothesis


@dataclass
class Config:
    """Options of the greedy search."""

    name: str = "ctc_greedy"
    """The search's kind."""
    head: str = "ctc"
    """The model head to read."""
    own_language: bool = False
    """Find only phones `(xx)p` of the utterance's language xx, as utt2lang says it."""


class Greedy:
    """Best-path decoding."""

    def __init__(self, config: Config, resources: Resources) -> None:
        if resources.lexicon_path or resources.lm_path:
            raise InputError("the greedy search takes neither --lexicon nor --lm; use search.name=ctc_beam")
        resources.refuse_bert(config.name)
        self.head, self.tokenizer = config.head, resources.assets.tokenizer

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        log_probs, lengths = heads[self.head]
        best = log_probs.amax(-1)
        frames = range(log_probs.shape[1])
        hypotheses = []
        for i, tokens in enumerate(ctc_greedy(log_probs, lengths, self.tokenizer.blank)):
            score = float(best[i, : int(lengths[i])].sum()) if len(frames) else 0.0
            words = self.tokenizer.decode(tokens).split()
            hypotheses.append([Hypothesis(tokens=tokens, words=words, score=score, ctc=score, lm=0.0)])
        return hypotheses

    def text(self, hypothesis: Hypothesis) -> str:
        return " ".join(hypothesis.words)


def build(config: Config, resources: Resources) -> Greedy:
    """The greedy search for a model."""
    return Greedy(config, resources)
