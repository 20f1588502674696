"""The transducer loss from the two networks' states: the joint network's `(B, T, U + 1, V)` is never there.

The output layer's logits are made for a piece of the lattice at a time; of each node three numbers stay, the
normaliser and the logits of the blank and of the next label. The backward pass makes the pieces again.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from speechkit.losses.transducer import transducer_loss
from speechkit.losses.transducer_lattice import Occupations

Combine = Literal["add", "multiply"]
"""How the states of the two networks meet before the tanh."""

LOGITS = 1 << 24
"""Logits that are there at once, at most (unless a single frame has more): 64 MB of fp32."""


class Piece(NamedTuple):
    """A part of an utterance's lattice: frames `start` to `end`, all rows.

    Attributes:
        row: of the batch.
        start: first frame.
        end: frame after the last.
        rows: labels of the utterance, plus 1.
    """

    row: int
    start: int
    end: int
    rows: int


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
    logits: int = LOGITS,
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
        logits: that are there at once; changes speed and memory only.

    Returns:
        `(B,)` losses, and the occupations; see `transducer_loss`.

    Raises:
        ValueError: a blank in a target, by its row, or shapes and lengths that do not fit.
    """
    inside = torch.arange(tokens.size(1), device=tokens.device) < token_lengths.to(tokens.device)[:, None]
    spoilt = ((tokens == blank) & inside).any(1).nonzero().flatten().tolist()
    if spoilt:
        raise ValueError(f"row {spoilt[0]} of the batch: the blank ({blank}) is in the target")
    tokens = tokens.masked_fill(~inside, 1 if blank == 0 else 0)
    device = frames.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else frames.dtype
    pieces = _pieces(lengths.tolist(), token_lengths.tolist(), len(weight), logits)
    plan = _Plan(pieces, tokens.to(frames.device), combine, blank, dtype)
    with torch.autocast(device, enabled=False):
        silent, spoken = _Arcs.apply(frames, states, weight, bias, plan)
        return transducer_loss(silent, spoken, lengths, token_lengths, fastemit)


def _pieces(lengths: list[int], token_lengths: list[int], vocab: int, logits: int) -> list[Piece]:
    found = []
    for row, (frames, tokens) in enumerate(zip(lengths, token_lengths)):
        step = max(1, logits // (vocab * (tokens + 1)))
        starts = range(0, frames, step)
        found += [Piece(row, start, min(start + step, frames), tokens + 1) for start in starts]
    return found


class _Plan(NamedTuple):
    """Everything about a loss that is no network's output.

    Attributes:
        pieces: of the lattices.
        tokens: `(B, U)` labels; any but the blank where there is none.
        combine: see `joint_transducer_loss`.
        blank: id of the blank.
        dtype: of the matrix products.
    """

    pieces: list[Piece]
    tokens: Tensor
    combine: Combine
    blank: int
    dtype: torch.dtype

    def hidden(self, frames: Tensor, states: Tensor, piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
        """The two sides `(t, 1, J)`, `(1, u, J)` of a piece, and the tanh `(t * u, J)` of both."""
        f = frames[piece.row, piece.start : piece.end, None]
        g = states[piece.row, None, : piece.rows]
        both = f + g if self.combine == "add" else f * g
        return f, g, both.tanh_().flatten(0, 1)

    def labels(self, piece: Piece) -> Tensor:
        """`(t * u,)` the next label of each node; any where there is none."""
        row = self.tokens[piece.row, : piece.rows]
        if len(row) < piece.rows:
            row = torch.nn.functional.pad(row, (0, 1))
        return row.repeat(piece.end - piece.start)


class _Arcs(torch.autograd.Function):
    """`(B, T, U + 1)` log-probabilities of the blank and `(B, T, U)` of the next label, zero outside."""

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, states: Tensor, weight: Tensor, bias: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        shape, wide = (*frames.shape[:2], states.size(1)), torch.promote_types(frames.dtype, torch.float32)
        silent, spoken = (frames.new_zeros(shape, dtype=wide) for _ in range(2))
        norm = torch.zeros_like(silent)
        matrix = weight.to(plan.dtype).t()
        for piece in plan.pieces:
            _, _, hidden = plan.hidden(frames, states, piece)
            logits = torch.addmm(bias.to(plan.dtype), hidden.to(plan.dtype), matrix).to(wide)
            place = (piece.row, slice(piece.start, piece.end), slice(piece.rows))
            grid = (-1, piece.rows)
            silent[place] = logits[:, plan.blank].view(grid)
            spoken[place] = logits.gather(1, plan.labels(piece)[:, None]).view(grid)
            norm[place] = logits.logsumexp(1).view(grid)
        ctx.save_for_backward(frames, states, weight, bias, norm)
        ctx.plan = plan
        return silent - norm, (spoken - norm)[:, :, :-1]

    @staticmethod
    def backward(ctx: Any, of_blank: Tensor, of_label: Tensor) -> tuple:
        frames, states, weight, bias, norm = ctx.saved_tensors
        plan, wide = ctx.plan, norm.dtype
        of_label = torch.nn.functional.pad(of_label, (0, 1))
        to_frames, to_states = torch.zeros_like(frames), torch.zeros_like(states)
        to_weight, to_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        small = weight.to(plan.dtype)
        for piece in plan.pieces:
            f, g, hidden = plan.hidden(frames, states, piece)
            place = (piece.row, slice(piece.start, piece.end), slice(piece.rows))
            first, second = of_blank[place].flatten(), of_label[place].flatten()
            logits = torch.addmm(bias.to(plan.dtype), hidden.to(plan.dtype), small.t()).to(wide)
            # d log p_k / d logit_j = [j = k] - p_j
            gradient = logits.sub_(norm[place].reshape(-1, 1)).exp_().mul_(-(first + second)[:, None])
            gradient[:, plan.blank] += first
            gradient.scatter_add_(1, plan.labels(piece)[:, None], second[:, None])
            to_bias += gradient.sum(0)
            gradient = gradient.to(plan.dtype)
            _add_product(to_weight, gradient.t(), hidden.to(plan.dtype))
            back = (gradient @ small).to(hidden.dtype).mul_(1 - hidden.square()).view(len(f), piece.rows, -1)
            sides = (back, back) if plan.combine == "add" else (back * g, back * f)
            to_frames[piece.row, piece.start : piece.end] += sides[0].sum(1)
            to_states[piece.row, : piece.rows] += sides[1].sum(0)
        return to_frames, to_states, to_weight, to_bias, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a @ b, in place; without a copy where the types agree."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
