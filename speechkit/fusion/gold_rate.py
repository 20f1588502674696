"""w2v-cif-bert's mixture of word embeddings and acoustic token vectors (Yi et al., 2021) as input of BERT.

In training, the embedding of a gold token stands in its slot with a probability that falls over the updates,
and the acoustic vector otherwise. In decoding, the embedding of the predicted token stands where the acoustic
output is sure of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.hashing import uniform
from speechkit.layers.masks import padding_mask

SALT = 0x601D


@dataclass
class Config:
    """The schedule of the gold rate, and when a prediction is taken for sure."""

    high: float = 0.9
    """Rate until `start`."""

    low: float = 0.2
    """Rate from `start + updates` on."""

    start: int = 10_000
    """Update at which the rate begins to fall."""

    updates: int = 80_000
    """Updates that the fall takes, in a straight line."""

    confidence: float = 0.8
    """Probability above which a predicted token's embedding stands for it in decoding."""

    def __post_init__(self) -> None:
        check_range("high", self.high, 0, 1)
        check_range("low", self.low, 0, self.high)
        check_range("start", self.start, 0)
        check_range("updates", self.updates, 1)
        check_range("confidence", self.confidence, 0, 1)


class GoldRate:
    """Decides which slots are gold.

    Args:
        config: see `Config`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def rate(self, update: int) -> float:
        """The probability of a gold slot at an update, counted from 0."""
        c = self.config
        fallen = min(1.0, max(0, update - c.start) / c.updates)
        return c.high - fallen * (c.high - c.low)

    def picks(self, keys: Tensor, lengths: Tensor, update: int) -> Tensor:
        """Draws the gold slots of a batch, from nothing but keys and the rate.

        Args:
            keys: `(B,)` int64 on the CPU, see `speechkit.data.batch.Batch`.
            lengths: `(B,)` tokens.
            update: counted from 0.

        Returns:
            `(B, max lengths)` bool on the device of `lengths`, False at padding. The draw of a slot stays the
            same when the rate falls: gold slots then only become fewer.
        """
        padding = padding_mask(lengths)
        draws = uniform(keys.numpy()[:, None], SALT, torch.arange(padding.size(1)).numpy())
        gold = torch.from_numpy(draws < self.rate(update)).to(lengths.device)
        return gold & ~padding

    def sure(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """What is predicted, and where that is sure.

        Args:
            log_probs: `(B, U, V)` of the acoustic output.

        Returns:
            `(B, U)` ids and `(B, U)` bool.
        """
        best, ids = log_probs.max(-1)
        return ids, best.exp() > self.config.confidence


def mix(words: Tensor, vectors: Tensor, gold: Tensor) -> Tensor:
    """`(B, U, D)`: word embeddings where `gold` `(B, U)` is True, acoustic vectors elsewhere."""
    return torch.where(gold[..., None], words, vectors.to(words.dtype))
