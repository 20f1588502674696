"""The transducer loss of given logits `(B, T, U + 1, V)`, for joint networks that are not ours.

Nothing of their size is made but the gradient. `speechkit.losses.joint_transducer` does without both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from speechkit.losses.lattice_parts import Rectangle, shrink, visits, whole
from speechkit.losses.node_logits import differentiate_, fused, read_nodes, real_labels
from speechkit.losses.transducer import check_lengths, transducer_loss
from speechkit.losses.transducer_lattice import NOTHING, Lattice, Occupations, occupations

LOGITS = 1 << 20
"""Logits that are worked at together on a CPU, about: they stay in its cache from one pass to the next."""


def logits_transducer_loss(
    logits: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    token_lengths: Tensor,
    *,
    blank: int = 0,
    fastemit: float = 0.0,
    lattice: Lattice = occupations,
) -> tuple[Tensor, Occupations]:
    """Negative log probabilities of the targets under softmax(logits).

    Args:
        logits: `(B, T, U + 1, V)`, fp32 or fp64; what lies beyond a length is not looked at.
        tokens: `(B, U)` labels, none of them the blank.
        lengths: `(B,)` frames, at least 1.
        token_lengths: `(B,)` labels.
        blank: id of the blank.
        fastemit: see `speechkit.losses.transducer.transducer_loss`.
        lattice: likewise.

    Returns:
        `(B,)` losses, and the occupations; see `speechkit.losses.transducer.transducer_loss`.

    Raises:
        TypeError: half precision.
        ValueError: a blank in a target, by its row, or shapes or lengths that do not fit.
    """
    if logits.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"the transducer needs logits in fp32 or fp64, got {logits.dtype}")
    batch, frames, rows, _ = logits.shape
    if tokens.shape != (batch, rows - 1):
        raise ValueError(f"logits are {tuple(logits.shape)}, so tokens must be {(batch, rows - 1)}")
    check_lengths(batch, frames, rows - 1, lengths, token_lengths)
    labels = torch.nn.functional.pad(real_labels(tokens, token_lengths, blank), (0, 1))
    labels = labels.to(logits.device)[:, None].expand(-1, frames, -1)
    with torch.autocast(logits.device.type, enabled=False):
        nodes = whole(lengths.tolist(), token_lengths.tolist())
        silent, spoken = _Arcs.apply(logits, labels, nodes, blank)
        return transducer_loss(silent, spoken, lengths, token_lengths, fastemit, lattice)


def _blocks(nodes: list[Rectangle], logits: Tensor) -> Iterator[Rectangle]:
    """The same nodes, on a CPU a few frames at a time."""
    for r in nodes:
        step = max(1, LOGITS // (r.shape[1] * logits.size(3))) if logits.device.type == "cpu" else r.end
        starts = range(r.start, r.end, step)
        yield from (r._replace(start=start, end=min(start + step, r.end)) for start in starts)


class _Arcs(torch.autograd.Function):
    """`(B, T, U + 1)` log-probabilities of the blank and `(B, T, U)` of the next label, NOTHING elsewhere."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, nodes: list[Rectangle], blank: int
    ) -> tuple[Tensor, Tensor]:
        norm, silent, spoken = (logits.new_full(logits.shape[:3], NOTHING) for _ in range(3))
        for r in _blocks(nodes, logits):
            found = read_nodes(r.of(logits), r.of(labels), blank)
            for target, values in zip((norm, silent, spoken), found):
                r.of(target).copy_(values)
        ctx.save_for_backward(logits, labels, norm)
        ctx.nodes, ctx.blank = nodes, blank
        return silent, spoken[:, :, :-1]

    @staticmethod
    def backward(ctx: Any, of_blank: Tensor, of_label: Tensor) -> tuple:
        logits, labels, norm = ctx.saved_tensors
        of_label = torch.nn.functional.pad(of_label, (0, 1))
        gradient, nodes = torch.zeros_like(logits), ctx.nodes
        if not fused(logits):  # the kernel looks at a node's gradients itself
            seen = visits(of_blank, of_label)
            nodes = [s for node in nodes for s in shrink(node, seen)]
        for r in nodes:
            found = r.of(gradient)
            found.copy_(r.of(logits))
            differentiate_(found, r.of(labels), ctx.blank, r.of(norm), r.of(of_blank), r.of(of_label))
        return gradient, None, None, None
