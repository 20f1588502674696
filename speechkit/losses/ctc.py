"""Connectionist temporal classification (Graves et al., 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feasible(frames: int, tokens: Sequence[int]) -> bool:
    """Whether any alignment exists: a frame a token, and a blank between equal neighbours.

    Args:
        frames: output frames T.
        tokens: target ids, without blanks.
    """
    repeats = sum(a == b for a, b in zip(tokens, tokens[1:]))
    return frames >= len(tokens) + repeats


def ctc_loss(
    log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, blank: int = 0
) -> Tensor:
    """Negative log probability of each target, summed over its alignments, in fp32 (or fp64).

    An infeasible target costs infinity: it is for the caller to have left it out (`feasible`).

    Args:
        log_probs: `(B, T, V)` log-softmax values, fp32 or fp64.
        lengths: `(B,)` frames.
        tokens: `(B, U)` target ids; what lies beyond a length is not looked at.
        token_lengths: `(B,)`.
        blank: id of the blank.

    Returns:
        `(B,)` losses.

    Raises:
        TypeError: `log_probs` in half precision, which loses the sum over alignments.
    """
    if log_probs.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"CTC needs log-probabilities in fp32 or fp64, got {log_probs.dtype}")
    with torch.autocast(log_probs.device.type, enabled=False):
        return F.ctc_loss(
            log_probs.transpose(0, 1), tokens, lengths, token_lengths, blank=blank, reduction="none"
        )
