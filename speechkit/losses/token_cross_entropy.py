"""Cross entropy at those positions of a sequence that have a target."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""Target of a position that the loss does not look at."""


def token_cross_entropy(
    states: Tensor, targets: Tensor, logits: Callable[[Tensor], Tensor], smoothing: float = 0.0
) -> Tensor:
    """Summed over the positions that have a target; only these go through the output layer.

    Args:
        states: `(B, M, D)`.
        targets: `(B, M)` ids, `IGNORE` where there is none.
        logits: the output layer, `(P, D)` to `(P, V)`.
        smoothing: share of a target's probability that is spread evenly over all V ids (Szegedy et al., 2016,
            section 7).

    Returns:
        A scalar in fp32 (or fp64); 0 without any target.
    """
    targets = targets.flatten()
    places = (targets != IGNORE).nonzero().squeeze(1)
    chosen = logits(states.flatten(0, 1).index_select(0, places))
    with torch.autocast(chosen.device.type, enabled=False):
        chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        wanted = targets.index_select(0, places)
        return F.cross_entropy(chosen, wanted, reduction="sum", label_smoothing=smoothing)
