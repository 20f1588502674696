"""Mask-Predict (Ghazvininejad et al., 2019): a masked language model fills in a whole answer, then mends it.

Everything begins as [MASK]; iteration 0 predicts all tokens. Iteration k = 1 ... I-1 masks the
n_k = floor(L (1 - k / I)) tokens that were predicted with the least confidence and predicts these anew: the
other tokens, and how sure they were, stay. All utterances and all their candidate lengths are one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.layers.masks import padding_mask

Predict = Callable[[Tensor, Tensor], Tensor]
"""`(ids (R, M), lengths (R,))`, [MASK] and [PAD] among the ids -> `(R, M, V)` log probabilities."""


@dataclass
class Config:
    """How long, for which lengths, and by which score."""

    iterations: int = 10
    """I: predictions made, the first one included."""

    length_beam: Literal[1, 3, 5] = 1
    """Lengths tried for an utterance: around the expected one."""

    least: Literal[0, 1] = 1
    """Fewest tokens masked in an iteration: 1 in the published code, so that short answers are mended too."""

    normaliser: Literal["length", "gnmt"] = "length"
    """What the sum of log probabilities is divided by: L, or ((5 + L) / 6)^1.1 as AB-Net does."""

    def __post_init__(self) -> None:
        check_range("iterations", self.iterations, 1)


class Filled(NamedTuple):
    """The best answer for one utterance.

    Attributes:
        tokens: ids.
        score: what candidates are chosen by, a normalised log probability; minus infinity without tokens.
        log_probs: of each token, from the iteration that last predicted it.
    """

    tokens: list[int]
    score: float
    log_probs: list[float]


def length_candidates(lengths: Tensor, beam: int, longest: int) -> Tensor:
    """Lengths to try, the expected one first and the nearest ones next.

    Args:
        lengths: `(B,)` expected tokens.
        beam: C, odd.
        longest: most tokens.

    Returns:
        `(B, C)` between 1 and `longest` (edges come several times); all 0 where nothing is expected.
    """
    steps = torch.arange(1, beam, device=lengths.device)
    offsets = torch.cat([steps.new_zeros(1), (steps + 1) // 2 * (2 * (steps % 2) - 1)])  # 0, 1, -1, 2, -2
    return (lengths[:, None] + offsets).clamp(1, longest).where(lengths[:, None] > 0, 0)


@torch.no_grad()
def mask_predict(
    predict: Predict, lengths: Tensor, config: Config, mask_id: int, pad_id: int
) -> list[Filled]:
    """Decodes a batch.

    Args:
        predict: gets the candidates of the first utterance, then those of the second, and so on: R = B C
            rows, [PAD] beyond their lengths (a row may have none). What it says of other places than the
            masked ones is not looked at.
        lengths: `(B, C)` candidate lengths.
        config: see `Config`.
        mask_id: the id of [MASK] in what `predict` gets.
        pad_id: the id of [PAD] in what `predict` gets.

    Returns:
        The best candidate of each utterance; of equal ones the first.
    """
    batch, beam = lengths.shape
    tokens, log_probs = fill(predict, lengths.flatten(), config, mask_id, pad_id)
    scores = score(log_probs, lengths.flatten(), config.normaliser).view(batch, beam)
    best = scores.argmax(1)  # the first of equal ones
    chosen = (best + beam * torch.arange(batch, device=best.device)).tolist()
    sizes, scores = lengths.flatten().tolist(), scores.flatten().tolist()
    tokens, log_probs = tokens.tolist(), log_probs.tolist()
    return [Filled(tokens[row][: sizes[row]], scores[row], log_probs[row][: sizes[row]]) for row in chosen]


def fill(
    predict: Predict, lengths: Tensor, config: Config, mask_id: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """All iterations for rows of given lengths.

    Returns:
        `(R, M)` tokens with [PAD] beyond the lengths, and their log probabilities with zeros there.
    """
    padding = padding_mask(lengths)
    tokens = torch.full_like(padding, mask_id, dtype=torch.int64).masked_fill(padding, pad_id)
    log_probs = torch.zeros(padding.shape, device=lengths.device)
    if not padding.numel() or bool(padding.all()):
        return tokens, log_probs
    masked = ~padding
    for iteration in range(config.iterations):
        if iteration:
            count = (
                lengths * (config.iterations - iteration) // config.iterations
            )  # exact, unlike L (1 - k/I)
            masked = least_confident(log_probs, padding, count.clamp(min=config.least))
        best, ids = predict(tokens.masked_fill(masked, mask_id), lengths).max(-1)
        tokens = ids.where(masked, tokens)
        log_probs = torch.where(masked, best, log_probs)
    return tokens, log_probs


def least_confident(log_probs: Tensor, padding: Tensor, counts: Tensor) -> Tensor:
    """`(R, M)` True at the `counts` `(R,)` smallest log probabilities of each row; never at padding.

    Of equal ones the first is taken.
    """
    order = log_probs.masked_fill(padding, float("inf")).argsort(dim=1, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(order.size(1), device=order.device).expand_as(order))
    return (ranks < counts[:, None]) & ~padding


def score(log_probs: Tensor, lengths: Tensor, normaliser: str) -> Tensor:
    """`(R,)` sums of the `(R, M)` log probabilities, normalised as `Config.normaliser` says."""
    total = log_probs.masked_fill(padding_mask(lengths, log_probs.size(1)), 0).sum(1)
    divisor = lengths if normaliser == "length" else ((5 + lengths) / 6) ** 1.1
    return (total / divisor.clamp(min=1)).masked_fill(lengths == 0, float("-inf"))
