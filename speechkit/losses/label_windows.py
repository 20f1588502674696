"""Which rows of a transducer's lattice are worth the full joint network: a window of labels for each frame.

Source of the idea: Kuang et al. (2022), "Pruned RNN-T for fast, memory-efficient ASR training": a joint
network without a non-linearity between the sides is cheap, since the normalisers of all nodes are a matrix
product; where its paths lie the full network is asked, and nowhere else. The windows here are the best ones:
of all sequences that a path can pass they hold the most of the paths, found by dynamic programming.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from speechkit.losses.node_logits import real_labels
from speechkit.losses.transducer import check_lengths, transducer_loss
from speechkit.losses.transducer_lattice import NOTHING, Lattice, Occupations, occupations


class Windows(NamedTuple):
    """Rows of the lattice that are looked at; the others cannot be reached.

    Attributes:
        starts: `(B, T)` first row of each frame; they never fall, and windows of neighbours share a row.
        width: rows.
    """

    starts: Tensor
    width: int


def label_windows(found: Occupations, lengths: Tensor, token_lengths: Tensor, width: int) -> Windows:
    """The windows that hold the most of the paths.

    Args:
        found: where the paths of the cheap joint network lie.
        lengths: `(B,)` frames.
        token_lengths: `(B,)` labels.
        width: rows in a window; more where an utterance has so many labels a frame that no path would fit.
    """
    node = found.node.double()
    batch, frames, rows = node.shape
    ends, tops = lengths.to(node.device), token_lengths.to(node.device)
    width = min(max(width, 1 + int((-(-tops // ends)).max())), rows)
    sums = F.pad(node.cumsum(2), (1, 0))
    gains = sums[:, :, width:] - sums[:, :, : rows + 1 - width]  # (B, T, starts)
    last = (tops + 1 - width).clamp(min=0)
    starts = torch.arange(gains.size(2), device=node.device)
    gains = gains.masked_fill((starts > last[:, None])[:, None], -torch.inf)
    best = gains[:, 0].masked_fill(starts > 0, -torch.inf)
    before = []
    for t in range(1, frames):
        reach = F.pad(best, (width - 1, 0), value=-torch.inf).unfold(1, width, 1)  # (B, starts, width)
        value, place = reach.max(2)
        before.append(starts - (width - 1) + place)
        best = gains[:, t] + value
    chosen = [last]
    for t in range(frames - 1, 0, -1):
        inside = before[t - 1].gather(1, chosen[-1][:, None])[:, 0]
        chosen.append(torch.where(t < ends, inside, last))
    return Windows(torch.stack(chosen[::-1], 1), width)


def additive_loss(
    frames: Tensor,
    states: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    token_lengths: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    *,
    blank: int = 0,
    lattice: Lattice = occupations,
) -> tuple[Tensor, Occupations]:
    """The transducer loss under softmax(A f + C g + d), an utterance at a time.

    Args:
        frames: `(B, T, J)` f.
        states: `(B, U + 1, J)` g.
        tokens: `(B, U)` labels, none of them the blank; what lies beyond a length is not looked at.
        lengths: `(B,)` frames.
        token_lengths: `(B,)` labels.
        weights: A `(V, J)`, C `(V, J)` and d `(V,)`.
        blank: id of the blank.
        lattice: see `speechkit.losses.transducer.transducer_loss`.

    Returns:
        `(B,)` losses, and the occupations.

    Raises:
        ValueError: a blank in a target, or lengths that do not fit.
    """
    check_lengths(*frames.shape[:2], states.size(1) - 1, lengths, token_lengths)
    labels = F.pad(real_labels(tokens, token_lengths, blank), (0, 1)).to(frames.device)
    with torch.autocast(frames.device.type, enabled=False):
        pairs = []
        for i, (t, u) in enumerate(zip(lengths.tolist(), token_lengths.tolist())):
            sides = [x.to(weights[0].dtype) for x in (frames[i, :t], states[i, : u + 1])]
            arcs = checkpoint(_arcs, *sides, *weights, labels[i, : u + 1], blank, use_reentrant=False)
            room = (0, states.size(1) - 1 - u, 0, frames.size(1) - t)
            pairs.append([F.pad(values, room, value=NOTHING) for values in arcs])
        silent, spoken = (torch.stack(values) for values in zip(*pairs))
        return transducer_loss(silent, spoken[:, :, :-1], lengths, token_lengths, lattice=lattice)


def _arcs(
    frames: Tensor, states: Tensor, a: Tensor, c: Tensor, d: Tensor, labels: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """`(t, u)` log-probabilities of the blank and of the next label."""
    of_frames, of_states = frames @ a.t(), torch.addmm(d, states, c.t())
    high, top = (x.detach().amax(1, keepdim=True) for x in (of_frames, of_states))
    product = (of_frames - high).exp() @ (of_states - top).exp().t()
    norm = product.clamp(min=torch.finfo(product.dtype).tiny).log() + high + top.t()
    silent = of_frames[:, blank, None] + of_states[:, blank]
    spoken = of_frames.index_select(1, labels) + of_states.gather(1, labels[:, None])[:, 0]
    return silent - norm, spoken - norm
