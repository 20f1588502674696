"""Norms of packed tokens: instance normalisation (Ulyanov et al., 2016) over tokens, and layer norm.

Packed sequences have no padding, so none takes part in statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenInstanceNorm(nn.Module):
    """Mean 0 and variance 1 of each channel over the tokens of a sequence, then a gain and a bias.

    There are no running statistics: training and evaluation do the same. A sequence of one token has no
    variance, so it is only multiplied by the gain and moved by the bias.

    Args:
        dim: D.
        eps: added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Normalises.

        Args:
            x: `(N, D)` packed tokens.
            sizes: how many neighbours share statistics, for each run of them; the sum is N.

        Returns:
            `(N, D)`.
        """
        parts = [self._run(part) for part in x.split(list(sizes))]
        return torch.cat(parts) if parts else x

    def _run(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            return torch.addcmul(self.bias, x, self.weight)
        # Batch normalisation over the first axis, without its memory: one kernel for a sequence.
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class TokenLayerNorm(nn.LayerNorm):
    """Layer normalisation, called like `TokenInstanceNorm`; each token is by itself."""

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """`(N, D)` to `(N, D)`; the sizes do not matter."""
        return super().forward(x)


TOKEN_NORMS: dict[str, type[nn.Module]] = {"instance": TokenInstanceNorm, "layer": TokenLayerNorm}
"""Name in configurations -> class, built with a dimension."""
