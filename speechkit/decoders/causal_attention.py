"""Self-attention of tokens that see no further than themselves, for whole sequences and token by token."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.layers.masks import Packing

GROWTH = 32
"""Tokens for which room is made at once in what is kept."""


class Cache(NamedTuple):
    """Keys and values of the tokens so far, `(N, H, L, d)` with room for more at the end."""

    keys: Tensor
    values: Tensor


class CausalAttention(nn.Module):
    """Every token looks at itself and those before it.

    Args:
        dim: D.
        heads: H, a divisor of D.
        dropout: of attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """`(N, D)` packed tokens to `(N, D)`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = packing.unpack(qkv).permute(2, 0, 3, 1, 4)
        dropped = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropped)
        return self.out(packing.pack(out.transpose(1, 2)).flatten(1))

    def step(self, x: Tensor, rows: Tensor, cache: Cache, size: int) -> tuple[Tensor, Cache]:
        """One more token for each hypothesis.

        Args:
            x: `(N, D)`.
            rows: `(N,)` hypothesis of the cache that each continues.
            cache: of this block.
            size: tokens in it.

        Returns:
            `(N, D)`, and the cache of these hypotheses.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        cache = Cache(*(_append(kept.index_select(0, rows), size, new) for kept, new in zip(cache, (k, v))))
        keys, values = (kept.flatten(0, 1)[:, : size + 1] for kept in cache)
        scores = q.reshape(len(keys), 1, -1) / math.sqrt(q.size(-1)) @ keys.transpose(1, 2)
        return self.out((scores.softmax(-1) @ values).view_as(x)), cache


def _append(kept: Tensor, size: int, new: Tensor) -> Tensor:
    """Writes `(N, H, d)` behind the first `size` of `(N, H, L, d)`, in place where there is room."""
    if size == kept.size(2):
        kept = F.pad(kept, (0, 0, 0, GROWTH))
    kept[:, :, size] = new
    return kept
