"""Forced alignment by CTC: the most probable path of known tokens, batched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechkit.search.greedy import Span


@dataclass
class Alignment:
    """The best path of one utterance.

    Attributes:
        spans: frames of every token, in order; frames between spans are blank.
        score: natural log probability of the path, -inf when the frames are too few for the tokens.
    """

    spans: list[Span]
    score: float


def ctc_align(
    log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, blank: int = 0
) -> list[Alignment]:
    """Aligns tokens with frames (Viterbi over the CTC states blank, y1, blank, y2, ..., blank).

    Args:
        log_probs: `(B, T, V)` log probabilities.
        lengths: `(B,)` frames.
        tokens: `(B, U)` token ids, padded with anything.
        token_lengths: `(B,)` tokens.
        blank: id of the blank.

    Returns:
        An alignment of each utterance; without spans and with score -inf where none exists
        (fewer frames than tokens plus repeats).
    """
    log_probs = log_probs.detach()
    device, (batch, frames, _) = log_probs.device, log_probs.shape
    lengths, token_lengths = lengths.to(device), token_lengths.to(device)
    states = _states(tokens.to(device), token_lengths, blank)
    emissions = log_probs.gather(2, states[:, None].expand(batch, frames, -1))  # (B, T, S)
    skip = (states != blank) & (states != _shift(states, 2, blank))  # may be entered from two states back
    score = emissions.new_full(states.shape, -torch.inf)
    steps = torch.zeros(frames, *states.shape, dtype=torch.uint8, device=device)
    if frames:
        score[:, :2] = emissions[:, 0, :2]
    for t in range(1, frames):
        two_back = _shift(score, 2, -torch.inf).masked_fill(~skip, -torch.inf)
        best, step = torch.stack([score, _shift(score, 1, -torch.inf), two_back]).max(0)
        steps[t] = step
        score = torch.where((t < lengths)[:, None], best + emissions[:, t], score)
    return _trace(states, steps.cpu(), score, lengths, token_lengths, blank)


def _states(tokens: Tensor, token_lengths: Tensor, blank: int) -> Tensor:
    """`(B, 2U+1)` token ids with blanks around them."""
    batch, width = tokens.shape
    states = tokens.new_full((batch, 2 * width + 1), blank)
    inside = torch.arange(width, device=tokens.device) < token_lengths[:, None]
    states[:, 1::2] = torch.where(inside, tokens, blank)
    return states


def _shift(values: Tensor, by: int, fill: float) -> Tensor:
    moved = torch.full_like(values, fill)
    moved[:, by:] = values[:, : values.shape[1] - by]
    return moved


def _trace(
    states: Tensor, steps: Tensor, score: Tensor, lengths: Tensor, token_lengths: Tensor, blank: int
) -> list[Alignment]:
    results = []
    for row, (frames, count) in enumerate(zip(lengths.tolist(), token_lengths.tolist())):
        if not frames:
            results.append(Alignment([], 0.0 if not count else -torch.inf))
            continue
        ends = score[row, max(2 * count - 1, 0) : 2 * count + 1]
        state = max(2 * count - 1, 0) + int(ends.argmax())
        if ends.max() == -torch.inf:
            results.append(Alignment([], -torch.inf))
            continue
        total, backwards, end = float(ends.max()), [], frames
        back, ids = steps[:frames, row].tolist(), states[row].tolist()
        for t in range(frames - 1, -1, -1):
            before = state - back[t][state] if t else -1
            if before != state:
                if state % 2:
                    backwards.append(Span(ids[state], t, end))
                end = t
            state = before
        results.append(Alignment(backwards[::-1], total))
    return results
