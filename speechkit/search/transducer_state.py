"""The hypotheses of a transducer's beam search over a batch, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = -torch.inf


@dataclass
class Beam:
    """Hypotheses of a batch, `(B, W)` each; empty places have the score NEVER.

    Attributes:
        model: log-probability under the transducer.
        path: that of the most probable path.
        extra: weighted language model and bonus.
        prefix: hash of the labels.
        node: last label in the tree of all labels, -1 for none.
        lm_state: of the n-gram model.
        place: row of the pool of what networks know.
    """

    model: Tensor
    path: Tensor
    extra: Tensor
    prefix: Tensor
    node: Tensor
    lm_state: Tensor
    place: Tensor

    @property
    def total(self) -> Tensor:
        """What hypotheses are ranked by."""
        return self.model + self.extra

    def take(self, index: Tensor) -> Beam:
        """Those at `(B, K)` places."""
        return Beam(*(value.gather(1, index) for value in vars(self).values()))

    def rows(self, count: int) -> Beam:
        """Of the first utterances."""
        return Beam(*(value[:count] for value in vars(self).values()))


def join(parts: list[Beam], width: int) -> Beam:
    """The best of several sets of hypotheses; the probabilities of those that read alike are added.

    Of these the one with the most probable path stays, the first of equals.
    """
    whole = Beam(*(torch.cat(values, 1) for values in zip(*(vars(part).values() for part in parts))))
    alive = whole.model > NEVER
    same = (whole.prefix[:, :, None] == whole.prefix[:, None]) & alive[:, :, None] & alive[:, None]
    added = whole.model[:, None].where(same, NEVER).logsumexp(2)
    mine, other = whole.path[:, :, None], whole.path[:, None]
    beaten = (same & ((other > mine) | ((other == mine) & torch.ones_like(same).tril(-1)))).any(2)
    whole.model = added.where(alive & ~beaten, NEVER)
    return whole.take(whole.total.topk(width).indices)
