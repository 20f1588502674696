"""The most probable symbols of a transducer, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from speechkit.config import check_range
from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.transducer_greedy import transducer_greedy


@dataclass
class Config:
    """Options of the greedy search."""

    name: str = "transducer_greedy"
    """The search's kind."""
    head: str = "transducer"
    """The model head to read."""
    max_symbols: int = 5
    """Labels in one frame, at most."""
    blank_penalty: float = 0.0
    """Subtracted from the blank's log-probability, against deletions."""

    def __post_init__(self) -> None:
        check_range("max_symbols", self.max_symbols, 1)


class Greedy:
    """Greedy transducer decoding."""

    def __init__(self, config: Config, resources: Resources) -> None:
        if resources.lexicon_path or resources.lm_path:
            raise InputError(
                "the greedy search takes neither --lexicon nor --lm; use search.name=transducer_beam"
            )
        resources.refuse_bert(config.name)
        self.config, self.model, self.tokenizer = config, resources.model, resources.assets.tokenizer

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        found = transducer_greedy(
            self.model,
            *heads[self.config.head],
            self.config.max_symbols,
            self.tokenizer.blank,
            self.config.blank_penalty,
        )
        return [[replace(h, words=self.tokenizer.decode(h.tokens).split())] for h in found]

    def text(self, hypothesis: Hypothesis) -> str:
        """What the tokens spell."""
        return " ".join(hypothesis.words)


def build(config: Config, resources: Resources) -> Greedy:
    """The greedy search for a model."""
    return Greedy(config, resources)
