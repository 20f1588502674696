"""Self-attention of tokens that see no further than themselves, for whole sequences and token by token.

Token by token, the keys and values of all tokens that any hypothesis of an utterance has read stay where they
are, and each hypothesis sees those that it has read itself: nothing moves when hypotheses change places.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.layers.masks import Packing

GROWTH = 16
"""Steps for which room is made at once in what is kept."""


class Cache(NamedTuple):
    """Keys and values of all tokens that were read, `(B, H, R, d)` with room for more at the end."""

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

    def step(self, x: Tensor, seen: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """One more token for each hypothesis.

        Args:
            x: `(N, D)`, W hypotheses of each utterance.
            seen: `(B, 1, W, E + W)`, 0 where a hypothesis has read one of the E tokens before or reads one of
                these W, else -inf.
            cache: of this block, with E tokens; it is written into.

        Returns:
            `(N, D)`, and the cache with these tokens.
        """
        width, end = seen.shape[2:]
        q, k, v = self.qkv(x).view(len(seen), width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        cache = Cache(*(_write(kept, end - width, new) for kept, new in zip(cache, (k, v))))
        keys, values = (kept[:, :, :end] for kept in cache)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen)
        return self.out(out.transpose(1, 2).reshape(x.shape)), cache


def _write(kept: Tensor, size: int, new: Tensor) -> Tensor:
    """Writes `(B, H, W, d)` behind the first `size` of `(B, H, R, d)`, in place where there is room."""
    width = new.size(2)
    if size + width > kept.size(2):
        kept = F.pad(kept, (0, 0, 0, GROWTH * width))
    kept[:, :, size : size + width] = new
    return kept
