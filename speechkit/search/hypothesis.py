"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from speechkit.search.greedy import Span


@dataclass
class Hypothesis:
    """One reading of an utterance; scores are natural logarithms.

    Attributes:
        tokens: token ids.
        words: words.
        score: what hypotheses are ranked by: ctc plus everything else, weighted; see also `search.rescore`.
        ctc: log probability of the tokens under the CTC model (of all token sequences of the same words,
            when a lexicon spells them in several ways).
        lm: the weighted rest: language model, bonuses, penalties.
        complete: False when the utterance ended inside a word; that word is left out of `words`.
        spans: frames of each token, when asked for.
        pll: pseudo-log-likelihood of the text under a BERT, when rescored.
        source: the output that it is from, of a model that has several.
        candidate: False for a reading that stands in the list to be compared with, and could not be kept.
    """

    tokens: list[int]
    words: list[str]
    score: float
    ctc: float
    lm: float
    complete: bool = True
    spans: list[Span] = field(default_factory=list)
    pll: float | None = None
    source: str = ""
    candidate: bool = True
