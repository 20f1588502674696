"""How a contrastive model uses its codes, and plain words when it looks collapsed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEW = 0.05
"""Share of the codebook entries in use below which a codebook counts as collapsed."""


def usage(codes: Tensor, entries: int) -> Tensor:
    """Relative frequencies `(G, V)` fp32 of `(N, G)` chosen entries, N at least 1."""
    chosen = torch.zeros(codes.size(1), entries, device=codes.device)
    ones = torch.ones_like(codes.T, dtype=chosen.dtype)
    return chosen.scatter_add_(1, codes.T, ones) / codes.size(0)


def contrastive_advice(row: dict[str, float], distractors: int, entries: int | None) -> str | None:
    """What is wrong with a logged row of contrastive pre-training, and what to do; None when nothing is.

    Args:
        row: `bits` (the contrastive loss), `accuracy`, and `code_perplexity` where there are codes.
        distractors: K.
        entries: G V, codebook entries in all; None without a quantizer.
    """
    bits, chance = row["bits"], math.log2(1 + distractors)
    used = row["code_perplexity"] if entries is not None else math.inf
    few = entries is not None and used < FEW * entries
    if not used:
        return "no frame was masked: the utterances are too short for model.mask, or have no frame"
    share = f"code perplexity {used:.1f} of {entries}"
    if few and (row["accuracy"] > 0.95 or bits < 0.1):
        return (
            f"collapsed: {share}, accuracy {row['accuracy']:.2f}, loss {bits:.2f} bits: nearly all targets "
            "are the same, so that telling them apart is trivial; it does not heal: start again with a lower "
            "optim.lr, a longer warm-up or larger updates, and look for silent or constant recordings"
        )
    if few:
        return (
            f"few codes in use: {share}; if it keeps falling, raise model.diversity_weight, lower optim.lr, "
            "or make updates larger (plan.micro_batches): small batches starve the codebooks"
        )
    if bits < 0.1:
        return (
            f"loss {bits:.3f} bits: the task has become trivial; check that the audio is speech and the mask "
            "long enough (model.mask.length)"
        )
    if bits > 0.98 * chance:
        return (
            f"no better than chance: loss {bits:.2f} bits of {chance:.2f} = log2(1 + {distractors}); if it "
            "lasts, the network learns nothing: try a lower or a higher optim.lr, a longer warm-up, and "
            "larger updates (plan.micro_batches), and check the level of the audio"
        )
    return None
