"""Sampling with Decay: BERT's branch reads the truth at first, and later what CTC has recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.hashing import uniform

SALT = 0x5D3CA


@dataclass
class SamplingDecay:
    """With probability p the masked truth, else the hypothesis (Zheng et al., 2021).

    p is `high` until update `start`, falls evenly to `low` at update `end` and stays there. Without decay:
    `high` and `low` both 1 (always the truth), or both 0 (always the hypothesis).
    """

    start: int = 100_000
    """Update at which p begins to fall (the paper: 100 k for BABEL, 40 k for AISHELL-1)."""

    end: int = 200_000
    """Update from which p is `low` (the paper: 200 k for BABEL, 100 k for AISHELL-1)."""

    high: float = 0.9
    """p at the start."""

    low: float = 0.1
    """p at the end."""

    mix: Literal["utterance", "token"] = "utterance"
    """One draw for a whole utterance, or one a token where the hypothesis is as long as the truth."""

    def __post_init__(self) -> None:
        check_range("start", self.start, 0)
        check_range("end", self.end, self.start)
        check_range("high", self.high, 0, 1)
        check_range("low", self.low, 0, self.high)

    def p(self, update: int) -> float:
        """The probability of the truth at an update, counted from 0."""
        if update <= self.start:
            return self.high
        share = min(1.0, (update - self.start) / max(self.end - self.start, 1))
        return self.high * (1 - share) + self.low * share

    def picks(self, keys: Tensor, update: int) -> Tensor:
        """Which utterances are given the truth: the same for a key in any batch, order and run.

        Args:
            keys: `(B,)` int64 on the CPU, see `speechkit.data.batch.Batch`.
            update: counted from 0.

        Returns:
            `(B,)` bool on the CPU.
        """
        return torch.from_numpy(uniform(keys.cpu().numpy(), SALT) < self.p(update))

    def token_picks(self, keys: Tensor, update: int, width: int) -> Tensor:
        """The same for each of `width` tokens of every utterance: `(B, width)` bool on the CPU."""
        places = torch.arange(width, device="cpu").numpy()
        return torch.from_numpy(uniform(keys.cpu().numpy()[:, None], SALT + 1, places) < self.p(update))
