"""How evenly a quantizer uses its codebooks: perplexity, and the losses that raise it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def perplexity(distribution: Tensor) -> Tensor:
    """`sum_g exp(H_g)` of `(G, V)` probabilities, between G and G V: the number of entries in use."""
    return entropies(distribution).exp().sum()


def entropies(distribution: Tensor) -> Tensor:
    """`(G,)` entropies in nats of `(G, V)` probabilities; an entry of probability 0 counts 0."""
    return -torch.special.xlogy(distribution, distribution.clamp(min=1e-30)).sum(-1)


def diversity_loss(probabilities: Tensor, form: Literal["perplexity", "entropy"] = "perplexity") -> Tensor:
    """The diversity loss of wav2vec 2.0 over N frames (Baevski et al., 2020, eq. 4).

    It is a function of a mean over frames, hence not a sum: the losses of two halves of a batch do not add
    up to that of the batch.

    Args:
        probabilities: `(N, G, V)` softmax without noise and temperature, N at least 1.
        form: `perplexity`: `(G V - sum_g exp(H_g)) / (G V)`, as released; `entropy`: `-sum_g H_g / (G V)`,
            as printed.

    Returns:
        A scalar, lowest when all entries are used equally.
    """
    mean = probabilities.mean(0)
    size = mean.numel()
    if form == "entropy":
        return -entropies(mean).sum() / size
    return (size - perplexity(mean)) / size
