"""Regression of a language model's embeddings from a decoder's states, beside recognition.

Source: Kubo et al. (2022), "Knowledge Transfer from Large-Scale Pretrained Language Models to End-To-End
Speech Recognizers", equations 3 and 7-9. Every label i of a target has a vector e_i; an affine map R of what
the recogniser knows just before label i is to come near it. In a transducer that is the frames at which the
label may be due, weighed by the occupations of its lattice, and the prediction network's state. Targets and
weights are constants.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechkit.losses.transducer_lattice import Occupations

Distance = Literal["l1", "l2", "smooth_l1", "cosine"]
"""Between vectors: the mean over dimensions of |a - b|, (a - b)^2 or Huber's, or 1 - cos(a, b)."""

Weighting = Literal["node_norm", "label", "node", "blank_norm"]
"""q_i(t), how much frame t counts for label i: `node_norm`: the share of paths that visit node (t, i-1),
divided by its sum over frames; `node`: the share itself, as in equation 8, whose sum is 1 plus the frames
that pass before the label; `label`: the share of paths that put the label out in the frame; `blank_norm`: of
those that end the frame there, divided by the sum (`label` where no path does)."""

PAIRS = 1 << 14
"""Pairs of a frame and a label, at most (unless one frame has more), whose regressions are there at once."""


def distance(predicted: Tensor, targets: Tensor, kind: Distance) -> Tensor:
    """`(..., D)` and `(..., D)` to `(...)`."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(predicted, targets, dim=-1)
    measure = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}[kind]
    return measure(predicted, targets, reduction="none").mean(-1)


def regression_loss(
    predicted: Tensor, targets: Tensor, token_lengths: Tensor, kind: Distance = "l1"
) -> Tensor:
    """Equation 3 (and 9, of averaged frames): the distances of an utterance's labels, summed.

    Args:
        predicted: `(B, U, D)` R of the states that come before each label.
        targets: `(B, U, D)` vectors of the labels.
        token_lengths: `(B,)`; what lies beyond is not looked at.
        kind: of distance.

    Returns:
        `(B,)`.
    """
    inside = (
        torch.arange(predicted.size(1), device=predicted.device) < token_lengths.to(predicted.device)[:, None]
    )
    predicted, targets = (x.masked_fill(~inside[..., None], 0) for x in (predicted, targets.detach()))
    return distance(predicted, targets, kind).masked_fill(~inside, 0).sum(1)


def frame_weights(found: Occupations, weighting: Weighting) -> Tensor:
    """`(B, T, U)` q_i(t) of each label, zero outside an utterance's lattice, without gradient."""
    label = found.label.detach()
    if weighting == "label":
        return label
    labels = label.size(2)
    real = label.sum(1, keepdim=True) > 0.5  # the row after the last label is visited, and has no target
    if weighting == "blank_norm":
        silent = found.blank.detach()[:, :, :labels] * real
        total = silent.sum(1, keepdim=True)
        return torch.where(total > 0, silent / total.where(total > 0, 1), label)
    node = found.node.detach()[:, :, :labels] * real
    return node if weighting == "node" else node / node.sum(1, keepdim=True).where(real, 1)


class Regression(nn.Module):
    """R, one affine map of a frame and a state: W_a phi + W_l psi + b.

    Args:
        frame_dim: of phi.
        state_dim: of psi.
        dim: of the embeddings.
    """

    def __init__(self, frame_dim: int, state_dim: int, dim: int) -> None:
        super().__init__()
        self.of_frames = nn.Linear(frame_dim, dim, bias=False)
        self.of_states = nn.Linear(state_dim, dim)

    def synchronous(
        self,
        frames: Tensor,
        states: Tensor,
        weights: Tensor,
        targets: Tensor,
        token_lengths: Tensor,
        kind: Distance = "l1",
    ) -> Tensor:
        """Equation 9: a regression a label, of its average frame.

        Args:
            frames: `(B, T, D)` phi; beyond an utterance they must be finite.
            states: `(B, U + 1, D')` psi; row i - 1 has read the labels before label i.
            weights: `(B, T, U)` from `frame_weights`.
            targets: `(B, U, E)`.
            token_lengths: `(B,)`.
            kind: of distance.

        Returns:
            `(B,)` sums over labels.
        """
        average = torch.einsum("btu,btd->bud", weights.to(frames.dtype), frames)
        predicted = self.of_frames(average) + self.of_states(states[:, : weights.size(2)])
        return regression_loss(predicted, targets, token_lengths, kind)

    def joint(
        self,
        frames: Tensor,
        states: Tensor,
        weights: Tensor,
        targets: Tensor,
        lengths: Tensor,
        token_lengths: Tensor,
        kind: Distance = "l1",
        pairs: int = PAIRS,
    ) -> Tensor:
        """Equation 7: a regression a frame and label, whose distances are averaged; in pieces.

        Args:
            frames: as in `synchronous`.
            states: as in `synchronous`.
            weights: as in `synchronous`.
            targets: as in `synchronous`.
            lengths: `(B,)` frames.
            token_lengths: as in `synchronous`.
            kind: as in `synchronous`.
            pairs: regressions that are there at once; they are made again in the backward pass.

        Returns:
            `(B,)` sums over labels.
        """
        heard, known, targets = self.of_frames(frames), self.of_states(states), targets.detach()
        sums = []
        for row, (size, count) in enumerate(zip(lengths.tolist(), token_lengths.tolist())):
            total = known.new_zeros((), dtype=known.dtype)
            step = max(1, pairs // max(1, count))
            for start in range(0, size if count else 0, step):
                part = slice(start, min(start + step, size))
                inputs = (
                    heard[row, part],
                    known[row, :count],
                    weights[row, part, :count],
                    targets[row, :count],
                )
                total = total + checkpoint(_expected, *inputs, kind, use_reentrant=False)
            sums.append(total)
        return torch.stack(sums)


def _expected(frames: Tensor, states: Tensor, weights: Tensor, targets: Tensor, kind: Distance) -> Tensor:
    predicted = frames[:, None] + states
    return (weights.to(predicted.dtype) * distance(predicted, targets.expand_as(predicted), kind)).sum()
