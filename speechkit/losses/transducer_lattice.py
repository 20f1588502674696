"""The transducer's lattice (Graves, 2012): forward and backward probabilities, occupations of nodes and arcs.

Node (t, u), t = 0 ... T-1 and u = 0 ... U: t frames are done with and u labels have been put out. A blank
leads to (t+1, u), a label to (t, u+1); every path begins at (0, 0) and ends with the blank out of (T-1, U).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from speechkit.losses.node_logits import fused

NOTHING = -1e30
"""Stands for log 0: sums of infinities would be NaN."""

LONGEST = 1 << 14
"""Frames of the longest utterance that Triton's kernel takes: a row of them is in its registers."""


class Occupations(NamedTuple):
    """What share of all paths of a target passes somewhere; zero outside an utterance's lattice.

    Attributes:
        log_prob: `(B,)` log p(y|x), summed over paths.
        blank: `(B, T, U + 1)` share that leaves a node by a blank.
        label: `(B, T, U)` share that leaves a node by the next label.
    """

    log_prob: Tensor
    blank: Tensor
    label: Tensor

    @property
    def node(self) -> Tensor:
        """`(B, T, U + 1)` share that visits a node; each is left exactly once."""
        return self.blank + torch.nn.functional.pad(self.label, (0, 1))


Lattice = Callable[[Tensor, Tensor, Tensor, Tensor], Occupations]
"""What `occupations` does, done by others."""


def occupations(blank: Tensor, label: Tensor, lengths: Tensor, token_lengths: Tensor) -> Occupations:
    """Runs forwards and backwards through the lattices of a batch, both at once, a diagonal at a time.

    What lies outside an utterance's lattice is not looked at. Sums are in fp64, which costs no time here: at
    2000 frames and 300 labels fp32 would leave three digits.

    Args:
        blank: `(B, T, U + 1)` log-probabilities of the blank, fp32 or fp64; results are of the same type.
        label: `(B, T, U)` those of the next label.
        lengths: `(B,)` frames, at least 1.
        token_lengths: `(B,)` labels.
    """
    if fused(blank) and blank.size(1) <= LONGEST:
        from speechkit.losses import transducer_kernels

        return transducer_kernels.occupations(blank, label, lengths, token_lengths)
    (batch, frames, rows), dtype = blank.shape, blank.dtype
    ends, tops = lengths.to(blank.device), token_lengths.to(blank.device)
    t, u = torch.arange(frames, device=blank.device), torch.arange(rows, device=blank.device)
    inside = (t[:, None] < ends[:, None, None]) & (u <= tops[:, None, None])
    blank = blank.double().where(inside, NOTHING)
    label = label.double().where(inside[:, :, 1:], NOTHING)  # (t, u) -> (t, u+1) has both ends inside
    end = (torch.arange(batch, device=blank.device), ends - 1, tops)
    final = blank[end]

    from_left = torch.nn.functional.pad(blank[:, :-1], (0, 0, 1, 0), value=NOTHING)
    from_below = torch.nn.functional.pad(label, (1, 0), value=NOTHING)
    back_t, back_u = (ends[:, None] - 1 - t).clamp(min=0), (tops[:, None] - u).clamp(min=0)
    forward = _both_ways(blank, label, from_left, from_below, final, back_t, back_u)
    alpha, backwards = forward[:batch], forward[batch:]
    beta = _turn(backwards, back_t, back_u).where(inside, NOTHING)

    total = alpha[end] + final
    alpha = alpha - total[:, None, None]
    after = torch.nn.functional.pad(beta[:, 1:], (0, 0, 0, 1), value=NOTHING)
    out = (alpha + blank + after).exp().where(inside, 0)
    out[end] = 1
    up = (alpha[:, :, :-1] + label + beta[:, :, 1:]).exp().where(inside[:, :, 1:], 0)
    return Occupations(total.to(dtype), out.to(dtype), up.to(dtype))


def _both_ways(
    blank: Tensor,
    label: Tensor,
    from_left: Tensor,
    from_below: Tensor,
    final: Tensor,
    back_t: Tensor,
    back_u: Tensor,
) -> Tensor:
    """`(2 B, T, U + 1)`: alpha, and beta with its axes turned, which obeys the same recursion.

    a(t, u) = log(exp(a(t-1, u) + left(t, u)) + exp(a(t, u-1) + below(t, u))): for alpha the arcs into a node,
    for beta those out of it.
    """
    batch, frames, rows = blank.shape
    upwards = torch.nn.functional.pad(label, (0, 1), value=NOTHING)
    left = torch.cat([from_left, _turn(blank, back_t, back_u)])
    below = torch.cat([from_below, _turn(upwards, back_t, back_u)])
    first = torch.cat([torch.zeros_like(final), final])
    left, below = _skew(left), _skew(below)  # (T + U, 2 B, U + 1): a diagonal is a row
    found = torch.empty_like(left)
    found[0] = NOTHING
    found[0, :, 0] = first
    nothing = left.new_full((2 * batch, 1), NOTHING)
    for d in range(1, frames + rows - 1):
        before = found[d - 1]
        beneath = torch.cat([nothing, before[:, :-1]], 1)
        torch.logaddexp(before + left[d], beneath + below[d], out=found[d])
        found[d].clamp_(min=NOTHING)
    return _unskew(found, frames)


def _turn(values: Tensor, back_t: Tensor, back_u: Tensor) -> Tensor:
    """Both axes from each utterance's end: `(B, T, U + 1)` at `(back_t, back_u)`."""
    rows = torch.arange(len(values), device=values.device)[:, None, None]
    return values[rows, back_t[:, :, None], back_u[:, None, :]]


def _skew(values: Tensor) -> Tensor:
    """`(B, T, R)` to `(T + R - 1, B, R)`, where row d has the nodes with t + u = d; NOTHING elsewhere."""
    batch, frames, rows = values.shape
    wide = torch.nn.functional.pad(values.transpose(1, 2), (0, rows), value=NOTHING)  # (B, R, T + R)
    flat = wide.reshape(batch, -1)[:, : rows * (frames + rows - 1)]
    return flat.reshape(batch, rows, frames + rows - 1).permute(2, 0, 1).contiguous()


def _unskew(values: Tensor, frames: int) -> Tensor:
    """The way back, `(T + R - 1, B, R)` to `(B, T, R)`."""
    diagonals, batch, rows = values.shape
    wide = values.permute(1, 2, 0).reshape(batch, -1)
    wide = torch.nn.functional.pad(wide, (0, rows), value=NOTHING)
    return wide.reshape(batch, rows, diagonals + 1)[:, :, :frames].transpose(1, 2).contiguous()
