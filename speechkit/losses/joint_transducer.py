"""The transducer loss from the two networks' states: the joint network's `(B, T, U + 1, V)` is never there.

The output layer's logits are made for a part of the lattices at a time; of each node three numbers stay, the
normaliser and the log-probabilities of the blank and of the next label. The backward pass makes the logits
again, or finds them where all of them fit a stated memory, and works at the nodes that paths visit only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from speechkit.losses.label_windows import Windows
from speechkit.losses.lattice_parts import (
    Part,
    Rectangle,
    pack,
    pieces,
    put,
    shrink,
    take,
    visits,
    whole,
    within,
)
from speechkit.losses.node_logits import differentiate_, read_nodes, real_labels
from speechkit.losses.transducer import check_lengths, transducer_loss
from speechkit.losses.transducer_lattice import NOTHING, Lattice, Occupations, occupations

Combine = Literal["add", "multiply"]
"""How the states of the two networks meet before the tanh."""

LOGITS = 1 << 24
"""Logits that are worked at together, at most (unless a single frame has more): 64 MB of fp32."""

NODES = 1 << 11
"""Nodes that a CPU works at together, at most: what belongs to them stays in its cache."""

KEPT = 1 << 27
"""Logits that are kept for the backward pass if there are no more than these: 512 MB of fp32."""


def joint_transducer_loss(
    frames: Tensor,
    states: Tensor,
    weight: Tensor,
    bias: Tensor,
    tokens: Tensor,
    lengths: Tensor,
    token_lengths: Tensor,
    *,
    combine: Combine = "add",
    blank: int = 0,
    fastemit: float = 0.0,
    windows: Windows | None = None,
    lattice: Lattice = occupations,
    logits: int = LOGITS,
    kept: int = KEPT,
) -> tuple[Tensor, Occupations]:
    """Negative log probabilities of the targets under softmax(W tanh(f + g) + b), for V of any size.

    Under autocast the matrix products are in its type; normalisers and the lattice never are.

    Args:
        frames: `(B, T, J)` the encoder's, projected to the joint network's width.
        states: `(B, U + 1, J)` the prediction network's, row u having read u labels.
        weight: `(V, J)` of the output layer.
        bias: `(V,)`.
        tokens: `(B, U)` labels, none of them the blank; what lies beyond a length is not looked at.
        lengths: `(B,)` frames, at least 1.
        token_lengths: `(B,)`.
        combine: `add`: tanh(f + g); `multiply`: tanh(f * g).
        blank: id of the blank.
        fastemit: see `transducer_loss`.
        windows: rows that are looked at in each frame; None for all.
        lattice: see `transducer_loss`.
        logits: that are there at once; changes speed and memory only.
        kept: logits of the whole batch that may be kept, instead of being made again; likewise.

    Returns:
        `(B,)` losses, and the occupations; see `transducer_loss`.

    Raises:
        ValueError: a blank in a target, by its row, or shapes or lengths that do not fit.
    """
    _check(frames, states, weight, tokens)
    check_lengths(*frames.shape[:2], tokens.size(1), lengths, token_lengths)
    tokens = real_labels(tokens, token_lengths, blank)
    device = frames.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else frames.dtype
    sizes = lengths.tolist(), token_lengths.tolist()
    nodes = whole(*sizes) if windows is None else within(*windows, *sizes)
    most = max(1, logits // len(weight))
    parts = list(pack(nodes, most if frames.is_cuda else min(NODES, most)))
    labels = torch.nn.functional.pad(tokens, (0, 1))[:, None].expand(-1, frames.size(1), -1)
    keep = sum(r.nodes for r in nodes) * len(weight) <= kept
    plan = _Plan(parts, labels.to(frames.device), combine, blank, dtype, keep)
    with torch.autocast(device, enabled=False):
        silent, spoken = _Arcs.apply(frames, states, weight, bias, plan)
        return transducer_loss(silent, spoken, lengths, token_lengths, fastemit, lattice)


def _check(frames: Tensor, states: Tensor, weight: Tensor, tokens: Tensor) -> None:
    parts = frames, states, weight, tokens
    fits = frames.size(2) == states.size(2) == weight.size(1) and len(frames) == len(states) == len(tokens)
    if not fits or states.size(1) != tokens.size(1) + 1:
        raise ValueError(
            "frames (B, T, J), states (B, U + 1, J), weight (V, J) and tokens (B, U) do not fit each other: "
            + ", ".join(str(tuple(part.shape)) for part in parts)
        )


class _Plan(NamedTuple):
    """Everything about a loss that is no network's output.

    Attributes:
        parts: of the lattices.
        labels: `(B, T, U + 1)` next label of each node, a view; any but the blank where there is none.
        combine: see `joint_transducer_loss`.
        blank: id of the blank.
        dtype: of the matrix products.
        keep: the logits for the backward pass.
    """

    parts: list[Part]
    labels: Tensor
    combine: Combine
    blank: int
    dtype: torch.dtype
    keep: bool

    def sides(self, frames: Tensor, states: Tensor, r: Rectangle) -> tuple[Tensor, Tensor]:
        """Frames `(t, 1, J)` and states `(1, u, J)` that meet in a rectangle."""
        return frames[r.utterance, r.start : r.end, None], states[r.utterance, None, r.low : r.high]

    def hidden(self, frames: Tensor, states: Tensor, part: Part) -> Tensor:
        """`(N, J)` tanh of both at each node."""
        found = frames.new_empty(sum(r.nodes for r in part), frames.size(-1))
        meet = torch.add if self.combine == "add" else torch.mul
        for r, block in pieces(part, found):
            meet(*self.sides(frames, states, r), out=block)
        return _tanh_(found)

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`(N, V)` in fp32 at least; weight and bias are of the products' type."""
        found = torch.addmm(bias, hidden.to(self.dtype), weight.t())
        return found.to(torch.promote_types(hidden.dtype, torch.float32))


class _Arcs(torch.autograd.Function):
    """`(B, T, U + 1)` log-probabilities of the blank and `(B, T, U)` of the next label, NOTHING elsewhere."""

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, states: Tensor, weight: Tensor, bias: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        shape, wide = (*frames.shape[:2], states.size(1)), torch.promote_types(frames.dtype, torch.float32)
        norm, silent, spoken = (frames.new_full(shape, NOTHING, dtype=wide) for _ in range(3))
        matrix, offset = weight.to(plan.dtype), bias.to(plan.dtype)
        kept = []
        for part in plan.parts:
            logits = plan.logits(plan.hidden(frames, states, part), matrix, offset)
            found = read_nodes(logits, take(plan.labels, part), plan.blank)
            for target, values in zip((norm, silent, spoken), found):
                put(target, part, values)
            if plan.keep and any(ctx.needs_input_grad):
                kept.append(logits)
        ctx.save_for_backward(frames, states, weight, bias, norm, *kept)
        ctx.plan = plan
        return silent, spoken[:, :, :-1]

    @staticmethod
    def backward(ctx: Any, of_blank: Tensor, of_label: Tensor) -> tuple:
        frames, states, weight, bias, norm, *kept = ctx.saved_tensors
        plan: _Plan = ctx.plan
        of_label = torch.nn.functional.pad(of_label, (0, 1))
        wide = norm.dtype  # many parts are added up: in bf16 most of what they say would be rounded away
        to_frames, to_states = (torch.zeros_like(side, dtype=wide) for side in (frames, states))
        to_weight, to_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        matrix, offset = weight.to(plan.dtype), bias.to(plan.dtype)
        for part, logits in _parts(plan, kept, of_blank, of_label):
            hidden = plan.hidden(frames, states, part)
            if logits is None:
                logits = plan.logits(hidden, matrix, offset)
            nodes = (take(values, part) for values in (plan.labels, norm, of_blank, of_label))
            label, *rest = nodes
            differentiate_(logits, label, plan.blank, *rest)
            to_bias += logits.sum(0)
            gradient = logits.to(plan.dtype)
            _add_product(to_weight, gradient.t(), hidden.to(plan.dtype))
            back = (gradient @ matrix).to(hidden.dtype)
            torch.ops.aten.tanh_backward.grad_input(back, hidden, grad_input=back)
            for r, block in pieces(part, back):
                f, g = plan.sides(frames, states, r)
                first, second = (block, block) if plan.combine == "add" else (block * g, block * f)
                to_frames[r.utterance, r.start : r.end] += first.sum(1, dtype=wide)
                to_states[r.utterance, r.low : r.high] += second.sum(0, dtype=wide)
        return to_frames.to(frames.dtype), to_states.to(states.dtype), to_weight, to_bias, None


def _parts(
    plan: _Plan, kept: list[Tensor], of_blank: Tensor, of_label: Tensor
) -> Iterator[tuple[Part, Tensor | None]]:
    """Parts of what paths visit, with a copy of their logits where these were kept."""
    seen, frames = visits(of_blank, of_label), 64 if of_blank.is_cuda else 16  # launches cost time on a GPU
    if not kept:
        smaller = (s for part in plan.parts for r in part for s in shrink(r, seen, frames))
        largest = max(sum(r.nodes for r in part) for part in plan.parts)
        yield from ((part, None) for part in pack(smaller, largest))
        return
    for part, logits in zip(plan.parts, kept):
        found = [
            (s, s.inside(r, block)) for r, block in pieces(part, logits) for s in shrink(r, seen, frames)
        ]
        if found:
            smaller = [s for s, _ in found]
            copy = logits.new_empty(sum(s.nodes for s in smaller), logits.size(1))
            for (_, target), (_, block) in zip(pieces(smaller, copy), found):
                target.copy_(block)
            yield smaller, copy


def _tanh_(values: Tensor) -> Tensor:
    """In place; on CPUs as 2 sigmoid(2 x) - 1, as exact beside 1, which takes a third of the time."""
    if values.is_cuda or values.dtype != torch.float32:
        return values.tanh_()
    return values.mul_(2).sigmoid_().mul_(2).sub_(1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a @ b, in place; without a copy where the types agree."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
