"""How sure CTC and the cross-entropy output are of what they read, and which of them is believed.

Zheng et al. (2021) keep the output "with the higher confidence" and do not say what that is. By default it is
the mean log confidence of the tokens: of CTC, the highest posterior among the frames of a token's run on the
best path (the mean over frames would be a measure of the blanks); of the cross entropy, the highest
probability at each position. Where CTC speaks characters and the other side word pieces, tokens are put
together to words first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.layers.masks import padding_mask

Measure = Literal["token_mean", "path_mean", "entropy"]


@dataclass
class Config:
    """Which output is kept."""

    select: Literal["confidence", "ctc2", "ce", "oracle"] = "confidence"
    """The surer one; always CTC; always the cross entropy; the one with fewer errors: a bound, no result."""

    confidence: Measure = "token_mean"
    """Mean log probability of the tokens; of all frames of CTC's best path, blanks too; or minus the mean
    entropy of the tokens' distributions, as a share of its maximum."""

    unit: Literal["token", "word"] = "token"
    """What the mean is over; `word` when the two outputs speak different units."""

    word: Literal["product", "minimum"] = "product"
    """Confidence of a word: the product of its tokens', or that of its least sure token."""

    ctc_temperature: float = 1.0
    """CTC's log-probabilities are divided by it and normalised again; tuned on dev."""

    ce_temperature: float = 1.0
    """The same for the cross-entropy output."""

    def __post_init__(self) -> None:
        check_range("ctc_temperature", self.ctc_temperature, 1e-3)
        check_range("ce_temperature", self.ce_temperature, 1e-3)
        if self.unit == "word" and self.confidence == "path_mean":
            raise ValueError("confidence=path_mean is over frames, which belong to no word; use unit=token")


class Scores(NamedTuple):
    """Log confidences of a batch.

    Attributes:
        values: `(B, U)`, at most 0; 0 beyond the lengths.
        lengths: `(B,)` tokens (frames, words).
        nothing: `(B,)` of an utterance in which nothing was recognised.
    """

    values: Tensor
    lengths: Tensor
    nothing: Tensor

    def mean(self) -> Tensor:
        """`(B,)` mean over what there is, `nothing` where there is none."""
        means = self.values.sum(1) / self.lengths.clamp(min=1)
        return torch.where(self.lengths > 0, means, self.nothing)


def _cooled(log_probs: Tensor, temperature: float) -> Tensor:
    """Log-probabilities at a temperature, in fp32 or fp64."""
    log_probs = log_probs.detach().to(torch.promote_types(log_probs.dtype, torch.float32))
    return log_probs if temperature == 1 else (log_probs / temperature).log_softmax(-1)


def _certainty(log_probs: Tensor, measure: Measure) -> Tensor:
    """`(B, T)` log confidence of each distribution of `(B, T, V)`."""
    if measure != "entropy":
        return log_probs.amax(-1)
    return torch.xlogy(log_probs.exp(), log_probs.exp()).sum(-1) / math.log(max(log_probs.size(-1), 2))


def ctc_scores(
    log_probs: Tensor,
    lengths: Tensor,
    measure: Measure = "token_mean",
    temperature: float = 1.0,
    blank: int = 0,
) -> Scores:
    """Confidence of every token of CTC's best path: of the surest frame of its run.

    Nothing recognised is as sure as its least sure frame. With tokens, frames of blank change nothing but
    `path_mean`.

    Args:
        log_probs: `(B, T, V)` log-probabilities.
        lengths: `(B,)` frames.
        measure: see `Config.confidence`; `path_mean` gives a score a frame.
        temperature: see `Config`.
        blank: id of the blank.

    Returns:
        As many scores as `speechkit.search.greedy.ctc_greedy` has tokens.
    """
    log_probs, lengths = _cooled(log_probs, temperature), lengths.to(log_probs.device)
    beyond = padding_mask(lengths, log_probs.size(1))
    scores = _certainty(log_probs, measure).masked_fill(beyond, 0)
    least = scores.amin(1) if scores.size(1) else scores.new_zeros(len(scores))
    nothing = torch.where(lengths > 0, least, -torch.inf)
    if measure == "path_mean":
        return Scores(scores, lengths, nothing)
    tops, best = log_probs.max(-1) if scores.size(1) else (scores, scores.long())
    best = best.masked_fill(beyond, blank)
    speaks = best != blank
    starts = speaks & (best != torch.cat([best.new_full((len(best), 1), blank), best[:, :-1]], 1))
    counts = starts.sum(1)
    width = int(counts.max()) if len(counts) else 0
    # Frames of a run share a column; those of blanks go into one that is thrown away.
    column = (starts.cumsum(1) - 1).where(speaks, width)
    values = scores.new_full((len(scores), width + 1), -torch.inf)
    values = values.scatter_reduce(1, column, scores, "amax")[:, :width]
    return Scores(values.masked_fill(padding_mask(counts, width), 0), counts, nothing)


def ce_scores(
    log_probs: Tensor, lengths: Tensor, measure: Measure = "token_mean", temperature: float = 1.0
) -> Scores:
    """Confidence of the cross-entropy output at every position.

    Args:
        log_probs: `(B, M, V')` log-probabilities, without the positions of [CLS] and [SEP].
        lengths: `(B,)` positions; without any, the confidence is minus infinity.
        measure: see `Config.confidence`.
        temperature: see `Config`.
    """
    lengths = lengths.to(log_probs.device)
    scores = _certainty(_cooled(log_probs, temperature), measure)
    scores = scores.masked_fill(padding_mask(lengths, log_probs.size(1)), 0)
    return Scores(scores, lengths, scores.new_full((len(scores),), -torch.inf))


def by_word(scores: Scores, words: Tensor, combine: Literal["product", "minimum"] = "product") -> Scores:
    """Scores of words from those of their tokens.

    Args:
        scores: of tokens.
        words: `(B, U)` number of each token's word, from 0 without gaps, padded with anything; see
            `speechkit.fusion.word_numbers`.
        combine: see `Config.word`.
    """
    inside = ~padding_mask(scores.lengths, scores.values.size(1))
    words = words.to(scores.values.device)[:, : inside.size(1)].masked_fill(~inside, -1)
    counts = words.amax(1) + 1 if words.size(1) else torch.zeros_like(scores.lengths)
    width = int(counts.max()) if len(counts) else 0
    column = words.where(inside, width)
    values = scores.values.new_zeros(len(words), width + 1)
    values = values.scatter_reduce(1, column, scores.values, "sum" if combine == "product" else "amin")
    return Scores(values[:, :width].masked_fill(padding_mask(counts, width), 0), counts, scores.nothing)


def sequence_confidences(
    config: Config,
    ctc: tuple[Tensor, Tensor],
    ce: tuple[Tensor, Tensor],
    ctc_words: Tensor | None = None,
    ce_words: Tensor | None = None,
    blank: int = 0,
) -> tuple[Tensor, Tensor]:
    """Log confidences of both outputs of a batch, to be compared by `prefers_ce`.

    Args:
        config: see `Config`.
        ctc: `(B, T, V)` log-probabilities and `(B,)` frames.
        ce: `(B, M, V')` log-probabilities and `(B,)` positions, without [CLS] and [SEP].
        ctc_words: `word_numbers` of CTC's greedy tokens, for `unit: word`.
        ce_words: the same of the tokens of the cross entropy.
        blank: id of the blank.

    Returns:
        Two `(B,)`.

    Raises:
        ValueError: `unit: word` without the words.
    """
    heard = ctc_scores(*ctc, config.confidence, config.ctc_temperature, blank)
    known = ce_scores(*ce, config.confidence, config.ce_temperature)
    if config.unit == "word":
        if ctc_words is None or ce_words is None:
            raise ValueError("unit=word needs the word of each token of both outputs")
        heard, known = by_word(heard, ctc_words, config.word), by_word(known, ce_words, config.word)
    return heard.mean(), known.mean()


def prefers_ce(
    config: Config,
    ctc: Tensor,
    ce: Tensor,
    ctc_errors: Tensor | None = None,
    ce_errors: Tensor | None = None,
) -> Tensor:
    """Where the cross-entropy output is kept; ties go to CTC.

    Args:
        config: see `Config`.
        ctc: `(B,)` confidences, see `sequence_confidences`.
        ce: `(B,)` confidences.
        ctc_errors: `(B,)` errors of CTC's output, for `select: oracle`.
        ce_errors: the same of the other.

    Returns:
        `(B,)` bool.

    Raises:
        ValueError: `select: oracle` without errors.
    """
    if config.select == "confidence":
        return ce > ctc
    if config.select != "oracle":
        return torch.full_like(ce, config.select == "ce", dtype=torch.bool)
    if ctc_errors is None or ce_errors is None:
        raise ValueError("select=oracle needs the errors of both outputs")
    return ce_errors < ctc_errors
