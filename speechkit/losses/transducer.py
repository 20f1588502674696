"""The transducer loss (Graves, 2012) on the two log-probabilities that its lattice needs of every node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from speechkit.losses.transducer_lattice import Lattice, Occupations, occupations


def transducer_loss(
    blank: Tensor,
    label: Tensor,
    lengths: Tensor,
    token_lengths: Tensor,
    fastemit: float = 0.0,
    lattice: Lattice = occupations,
) -> tuple[Tensor, Occupations]:
    """Negative log probability of each target, summed over its alignments, and where its paths lie.

    The gradient is computed in closed form from the occupations, which cost nothing extra: minus the share
    of paths that takes an arc (what Graves' equation 20 says, for log-probabilities). They are constants:
    no gradient goes through them.

    Args:
        blank: `(B, T, U + 1)` log-probabilities of the blank, fp32 or fp64.
        label: `(B, T, U)` log-probability at node (t, u) of label u of the target.
        lengths: `(B,)` frames, at least 1; what lies beyond a length is not looked at.
        token_lengths: `(B,)` labels.
        fastemit: lambda of FastEmit (Yu et al., 2021): gradients of labels are multiplied by 1 + lambda,
            which moves them forward in time; the loss is what it was.
        lattice: what runs through the lattices: ours, or another's with the same result.

    Returns:
        `(B,)` losses, and the occupations.

    Raises:
        TypeError: half precision, which loses the sum over alignments.
        ValueError: shapes or lengths that do not fit.
    """
    if blank.dtype not in (torch.float32, torch.float64) or label.dtype != blank.dtype:
        raise TypeError(f"the transducer needs log-probabilities in fp32 or fp64, got {blank.dtype}")
    batch, frames, rows = blank.shape
    if label.shape != (batch, frames, rows - 1):
        raise ValueError(f"blank is {tuple(blank.shape)}, so label must be {(batch, frames, rows - 1)}")
    check_lengths(batch, frames, rows - 1, lengths, token_lengths)
    with torch.autocast(blank.device.type, enabled=False):
        loss, *shares = _Transducer.apply(blank, label, lengths, token_lengths, fastemit, lattice)
    return loss, Occupations(-loss.detach(), *shares)


def check_lengths(batch: int, frames: int, labels: int, lengths: Tensor, token_lengths: Tensor) -> None:
    """Whether lengths fit a batch.

    Args:
        batch: utterances.
        frames: of the longest utterance.
        labels: of the longest target.
        lengths: `(B,)` frames.
        token_lengths: `(B,)` labels.

    Raises:
        ValueError: they do not.
    """
    if lengths.shape != (batch,) or token_lengths.shape != (batch,):
        raise ValueError(f"a batch of {batch} needs as many lengths and token lengths")
    longest, most = int(lengths.max()), int(token_lengths.max())
    if int(lengths.min()) < 1 or longest > frames or int(token_lengths.min()) < 0 or most > labels:
        raise ValueError(
            f"lengths {int(lengths.min())} to {longest} of {frames} frames, token lengths "
            f"{int(token_lengths.min())} to {most} of {labels} labels: frames must be at least 1"
        )


class _Transducer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        blank: Tensor,
        label: Tensor,
        lengths: Tensor,
        token_lengths: Tensor,
        fastemit: float,
        lattice: Lattice,
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = lattice(blank, label, lengths, token_lengths)
        ctx.save_for_backward(found.blank, found.label)
        ctx.mark_non_differentiable(found.blank, found.label)
        ctx.fastemit = fastemit
        return -found.log_prob, found.blank, found.label

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple:
        blank, label = ctx.saved_tensors
        gradient = -gradient[:, None, None]
        return gradient * blank, gradient * (1 + ctx.fastemit) * label, None, None, None, None
