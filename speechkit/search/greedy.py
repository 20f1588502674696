"""The best path of CTC: argmax of every frame, repeats collapsed, blanks dropped."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """A token and its frames: `start` to `end`, `end` not included."""

    token: int
    start: int
    end: int


def ctc_greedy(log_probs: Tensor, lengths: Tensor, blank: int = 0) -> list[list[int]]:
    """Decodes a batch along its best path.

    Args:
        log_probs: `(B, T, V)` log probabilities (any scores that grow with them).
        lengths: `(B,)` int64 frames.
        blank: id of the blank.

    Returns:
        Token ids of every utterance.
    """
    return [[span.token for span in spans] for spans in ctc_greedy_spans(log_probs, lengths, blank)]


def ctc_greedy_spans(log_probs: Tensor, lengths: Tensor, blank: int = 0) -> list[list[Span]]:
    """Like `ctc_greedy`, with the frames over which each token is the best one."""
    batch, frames = log_probs.shape[:2]
    valid = torch.arange(frames, device=log_probs.device) < lengths.to(log_probs.device)[:, None]
    best = log_probs.argmax(-1).where(valid, blank) if frames else log_probs.new_zeros(batch, 0).long()
    edge = best.new_full((batch, 1), blank)
    changed = torch.cat([edge, best], 1) != torch.cat([best, edge], 1)  # (B, T + 1), at run boundaries
    starts = (changed[:, :-1] & (best != blank)).nonzero()
    # A run ends where the next value differs; the edge is blank, so every run has an end.
    ends = (changed[:, 1:] & (best != blank)).nonzero()
    spans: list[list[Span]] = [[] for _ in range(batch)]
    tokens = best[starts[:, 0], starts[:, 1]].tolist()
    for (row, start), end, token in zip(starts.tolist(), ends[:, 1].tolist(), tokens):
        spans[row].append(Span(token, start, end + 1))
    return spans
