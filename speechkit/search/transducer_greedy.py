"""Greedy transducer decoding of a batch, a label at a time instead of a frame at a time.

Source: Xu et al. (2024), "Label-Looping: Highly Efficient Decoding for Transducers". While a hypothesis
meets blanks its state stays, so several frames ahead are scored at once, up to the first label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speechkit.search.greedy import Span
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.transducer_networks import Networks

AHEAD = 8
"""Frames that are scored at once with a state; changes speed only."""


@torch.no_grad()
def transducer_greedy(
    networks: Networks,
    frames: Tensor,
    lengths: Tensor,
    max_symbols: int = 5,
    blank: int = 0,
    blank_penalty: float = 0.0,
) -> list[Hypothesis]:
    """Always takes the most probable symbol.

    Args:
        networks: of the transducer.
        frames: `(B, T, J)` projected.
        lengths: `(B,)`.
        max_symbols: labels in one frame, at most; then the next frame's turn comes without a blank.
        blank: id of the blank.
        blank_penalty: subtracted from the blank's log-probability before it is compared, against deletions.

    Returns:
        One hypothesis an utterance; its score is the log-probability of the path, and each label's span is
        the frame in which it came.
    """
    batch, width = frames.shape[:2]
    lengths = lengths.to(frames.device)
    states, memory = networks.start(batch)
    time, here = torch.zeros_like(lengths), torch.zeros_like(lengths)
    scores = frames.new_zeros(batch, dtype=torch.float64)
    found: list[list[Span]] = [[] for _ in range(batch)]
    active = (lengths > 0).nonzero()[:, 0]
    ahead = torch.arange(AHEAD, device=frames.device)
    while len(active):
        places = time[active, None] + ahead
        inside = places < lengths[active, None]
        seen = frames[active[:, None], places.clamp(max=width - 1)]
        log_probs = networks.score(seen, states[active, None])  # (N, AHEAD, V)
        ranked = log_probs.clone() if blank_penalty else log_probs
        if blank_penalty:
            ranked[..., blank] -= blank_penalty
        best = ranked.argmax(-1)
        gained = log_probs.gather(2, best[..., None])[..., 0].double()
        speaks = (best != blank) & inside
        first = torch.where(speaks.any(1), speaks.int().argmax(1), inside.sum(1))
        counted = inside & (ahead <= first[:, None])
        scores[active] += gained.where(counted, 0).sum(1)
        here[active] = here[active].where(first == 0, 0)  # labels in this frame
        time[active] += first
        row = speaks.any(1).nonzero()[:, 0]
        speaking, tokens = active[row], best[row, first[row]]
        for i, token, frame in zip(speaking.tolist(), tokens.tolist(), time[speaking].tolist()):
            found[i].append(Span(token, frame, frame + 1))
        if len(speaking):
            chosen = tuple(part[speaking] for part in memory)
            new_states, new_memory = networks.step(tokens, chosen)
            states = states.index_copy(0, speaking, new_states)
            memory = tuple(a.index_copy(0, speaking, b) for a, b in zip(memory, new_memory))
            here[speaking] += 1
            full = speaking[here[speaking] >= max_symbols]
            time[full] += 1
            here[full] = 0
        active = active[time[active] < lengths[active]]
    return [_hypothesis(spans, float(score)) for spans, score in zip(found, scores)]


def _hypothesis(spans: list[Span], score: float) -> Hypothesis:
    return Hypothesis([span.token for span in spans], [], score, ctc=score, lm=0.0, spans=spans)
