"""Mask-Predict: a conditional masked language model fills in a whole answer, in several passes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.search import mask_predict
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.mask_predict import Filled


@dataclass
class Config(mask_predict.Config):
    """How many passes, and which lengths are tried."""

    name: str = "mask_predict"
    """The search's kind."""
    head: str = "acoustic"
    """A head that the model must have; it is read in every pass."""


class MaskPredict:
    """Asks the model's BERT again and again; a score is the normalised log probability of the tokens."""

    def __init__(self, config: Config, resources: Resources) -> None:
        if resources.lexicon_path or resources.lm_path:
            raise InputError("the search mask_predict takes neither --lexicon nor --lm; see ctc_beam")
        resources.refuse_bert(config.name)
        if not hasattr(resources.model, "fill"):
            raise InputError("search.name=mask_predict: the model fills in no masks; only adapter_bert does")
        self.config, self.model = config, resources.model
        self.vocab = resources.model.units.vocab

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        return [[self._hypothesis(answer)] for answer in self.model.fill(heads, self.config)]

    def _hypothesis(self, answer: Filled) -> Hypothesis:
        words = self.vocab.decode(answer.tokens).split()
        return Hypothesis(answer.tokens, words, answer.score, ctc=0.0, lm=0.0, source="cmlm")

    def text(self, hypothesis: Hypothesis) -> str:
        """The words, in the spelling of BERT's side."""
        return " ".join(hypothesis.words)


def build(config: Config, resources: Resources) -> MaskPredict:
    """The search for a model."""
    return MaskPredict(config, resources)
