"""The N-best lists of the CTC beam search, rescored by a BERT."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

from torch import Tensor

from speechkit.config import check_range
from speechkit.decoding.ctc_beam import Beam
from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.search.ctc_beam import CtcBeamConfig
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.rescore import RescoreConfig, Scored, merge, rescore


@dataclass
class Config(CtcBeamConfig, RescoreConfig):
    """Options of the beam search, and of what is done with the hypotheses that it finds.

    Where a lexicon or an n-gram model is given the beam search uses it.
    """

    name: str = "rescore"
    """The search's kind."""
    head: str = "ctc"
    """The model head to read."""
    beam: int = 5
    """Hypotheses kept for each utterance by the beam search."""
    nbest: int = 5
    """How many of them are rescored."""
    bert_tokens: int = 8192
    """Tokens that go through BERT at once; changes speed and memory only."""

    def __post_init__(self) -> None:
        CtcBeamConfig.__post_init__(self)
        RescoreConfig.__post_init__(self)
        check_range("bert_tokens", self.bert_tokens, 1)


class Rescorer:
    """Beam search, then BERT's score of every hypothesis, then the two weighed.

    Attributes:
        first_pass_key: equal for two configurations whose `first_pass` finds the same.
        second_pass_options: what has no part in it.
    """

    second_pass_options = tuple(field.name for field in fields(RescoreConfig))

    def __init__(self, config: Config, resources: Resources) -> None:
        if resources.bert_path is None:
            raise InputError("the search rescore needs --bert, the folder of a BERT")
        self.config, self.resources, self.masked_lm = config, resources, resources.masked_lm
        self.first_pass_key = (config.head, *(getattr(config, f.name) for f in fields(CtcBeamConfig)))

    @functools.cached_property
    def _beam(self) -> Beam:
        """Built on first use: a trial that is given its first pass needs none."""
        return Beam(self.config, self.resources)

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        return self.second_pass(self.first_pass(heads))

    def first_pass(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Scored]]:
        """The beam's hypotheses of each utterance, those that read alike joined, with BERT's scores."""
        merged = [merge(nbest, [self._beam.text(h) for h in nbest]) for nbest in self._beam(heads)]
        self.masked_lm.tokens = self.config.bert_tokens
        scores = iter(self.masked_lm([self.text(h) for nbest in merged for h in nbest]))
        return [[Scored(h, s.log_prob, s.pieces) for h, s in zip(nbest, scores)] for nbest in merged]

    def second_pass(self, scored: list[list[Scored]]) -> list[list[Hypothesis]]:
        """The hypotheses in their final order."""
        return [rescore(nbest, self.config) for nbest in scored]

    def text(self, hypothesis: Hypothesis) -> str:
        """The words that were scored."""
        return " ".join(hypothesis.words)


def build(config: Config, resources: Resources) -> Rescorer:
    """The rescoring search for a model and a BERT."""
    return Rescorer(config, resources)
