"""N-best lists put into another order by a language model that scores whole texts.

Source: Zheng et al. (2021), "Wav-BERT", and Shin et al. (2019), "Effective Sentence Scoring Method Using
BERT for Speech Recognition": final = (1 - lambda) log P_ctc(y) + lambda PLL(y) / lp(y), the convex form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from speechkit.config import check_range
from speechkit.search.hypothesis import Hypothesis


@dataclass
class RescoreConfig:
    """How the first pass and the language model are weighed."""

    bert_weight: float = 0.5
    """lambda: the share of the language model in the score; 0 keeps the first pass's order."""
    len_norm: Literal["none", "length", "gnmt"] = "none"
    """What the language model's score is divided by: 1, the pieces, or Wu et al.'s (2016, equation 14)
    ((5 + pieces) / 6) ^ gnmt_alpha."""
    gnmt_alpha: float = 0.6
    """The exponent of gnmt."""
    first_score: Literal["ctc", "beam"] = "ctc"
    """The other share: CTC's log probability, or the beam's whole score (n-gram and bonus included)."""

    def __post_init__(self) -> None:
        check_range("bert_weight", self.bert_weight, 0, 1)
        check_range("gnmt_alpha", self.gnmt_alpha, 0)


class Scored(NamedTuple):
    """A hypothesis with what the language model makes of it.

    Attributes:
        hypothesis: of the first pass.
        log_prob: of its text under the language model, natural logarithm.
        pieces: that the log probability is the sum over.
    """

    hypothesis: Hypothesis
    log_prob: float
    pieces: int


def merge(nbest: Sequence[Hypothesis], texts: Sequence[str]) -> list[Hypothesis]:
    """Joins hypotheses that read alike: their CTC probabilities add up, the rest is that of the best.

    Args:
        nbest: best first; different token sequences.
        texts: what each reads as.

    Returns:
        One hypothesis a text, `words` being the words of the text, by score.
    """
    merged: dict[str, Hypothesis] = {}
    for hypothesis, text in zip(nbest, texts):
        first = merged.get(text)
        if first is None:
            merged[text] = replace(hypothesis, words=text.split())
        else:
            high, low = max(first.ctc, hypothesis.ctc), min(first.ctc, hypothesis.ctc)
            ctc = high + math.log1p(math.exp(low - high))
            merged[text] = replace(first, ctc=ctc, score=ctc + first.lm)
    return sorted(merged.values(), key=lambda hypothesis: -hypothesis.score)


def rescore(nbest: Sequence[Scored], config: RescoreConfig) -> list[Hypothesis]:
    """Orders hypotheses by `(1 - lambda) first + lambda log_prob / lp`; equal ones keep their order."""
    found = []
    for hypothesis, log_prob, pieces in nbest:
        first = hypothesis.ctc if config.first_score == "ctc" else hypothesis.ctc + hypothesis.lm
        second = log_prob / length_penalty(pieces, config)
        score = (1 - config.bert_weight) * first + config.bert_weight * second
        found.append(replace(hypothesis, score=score, pll=log_prob))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


def length_penalty(pieces: int, config: RescoreConfig) -> float:
    """lp(y): what the log probability of a text of so many pieces is divided by, 1 for an empty one."""
    if config.len_norm == "none" or not pieces:
        return 1.0
    return float(pieces) if config.len_norm == "length" else ((5 + pieces) / 6) ** config.gnmt_alpha
