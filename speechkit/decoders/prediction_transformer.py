"""Prediction network of self-attention over the last labels, for transducers and as a language model.

A Transformer (Vaswani et al., 2017) with the norm before each part and rotary positions (Su et al., 2021). In
every block a label sees itself and the labels before it, `context` in all, so that L blocks reach back
L (context - 1) labels. What is remembered of a sequence has the same size however long it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.decoders.prediction import Memory
from speechkit.layers.positions import rotate

BASE = 10000.0
"""The slowest pair of dimensions turns once in about 2 pi times so many labels."""


@dataclass
class Config:
    """Embedding and blocks of self-attention."""

    name: str = "transformer"
    """The network's kind."""

    dim: int = 256
    """Dimension D of a label's embedding, of the blocks and of the output."""

    layers: int = 4
    """Number of blocks."""

    heads: int = 4
    """Attention heads; D over their number is even."""

    feed_forward: int = 1024
    """Inner dimension of the feed-forward parts."""

    context: int = 64
    """Labels that a label sees in each block, itself included."""

    dropout: float = 0.1
    """Probability of dropping a value of embeddings, after each part and inside the feed-forward parts."""

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "feed_forward", "context"):
            check_range(name, getattr(self, name), 1)
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim={self.dim} must be a multiple of 2 heads={2 * self.heads}")


class Block(nn.Module):
    """Self-attention and feed-forward, each around a residual.

    Args:
        config: see `Config`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, inner, self.heads = config.dim, config.feed_forward, config.heads
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, inner), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(inner, dim)
        )

    def forward(
        self, x: Tensor, turns: Tensor, seen: Tensor, before: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads labels.

        Args:
            x: `(N, U, D)`.
            turns: `(N or 1, U, 1, d / 2)` of their places, see `_turns`.
            seen: `(N or 1, 1, U, K + U)` bool, which keys each label sees.
            before: keys and values `(N, K, H, d)` of the labels before these.

        Returns:
            `(N, U, D)`, and keys and values `(N, K + U, H, d)`.
        """
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = rotate(q, turns), rotate(k, turns)
        k, v = (torch.cat([old, new], 1) for old, new in zip(before, (k, v)))
        sides = (part.transpose(1, 2) for part in (q, k, v))
        found = F.scaled_dot_product_attention(*sides, attn_mask=seen).transpose(1, 2)
        x = x + self.dropout(self.out(found.flatten(2)))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x))), k, v


class TransformerPrediction(nn.Module):
    """See `speechkit.decoders.prediction.Prediction`.

    The memory: keys, turned already, and values `(N, layers, context - 1, H, d)` of the last labels, the
    newest last; and `(N,)` how many were read, the beginning included.

    Args:
        config: see `Config`.
        vocab_size: V, the blank included.
        blank: id of the blank.
    """

    def __init__(self, config: Config, vocab_size: int, blank: int = 0) -> None:
        super().__init__()
        self.output_dim, self.context, self.blank = config.dim, config.context, blank
        self.head_dim, self.heads = config.dim // config.heads, config.heads
        self.embedding = nn.Embedding(vocab_size, config.dim, padding_idx=blank)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, U)` labels to `(B, U + 1, D)`."""
        x = self.dropout(self.embedding(F.pad(tokens, (1, 0), value=self.blank)))
        places = torch.arange(x.size(1), device=x.device)
        age = places[:, None] - places
        seen = ((age >= 0) & (age < self.context))[None, None]
        nothing = x.new_zeros(len(x), 0, self.heads, self.head_dim)
        for block in self.blocks:
            x, *_ = block(x, self._turns(places, x.dtype)[None], seen, (nothing, nothing))
        return self.norm(x)

    def start(self, count: int) -> tuple[Tensor, Memory]:
        """`(N, D)` after no label, and the memory of it."""
        weight = self.embedding.weight
        empty = weight.new_zeros(count, len(self.blocks), self.context - 1, self.heads, self.head_dim)
        begun = torch.full((count,), self.blank, device=weight.device)
        return self.step(begun, (empty, empty, torch.zeros_like(begun)))

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """`(N, D)` after one more label each, `(N,)`, and the new memory."""
        keys, values, read = memory
        x = self.dropout(self.embedding(tokens))[:, None]
        turns = self._turns(read, x.dtype)[:, None]
        age = torch.arange(self.context - 1, -1, -1, device=read.device)
        seen = (age <= read[:, None])[:, None, None]  # the places of labels that were not read are empty
        kept = []
        for i, block in enumerate(self.blocks):
            x, *both = block(x, turns, seen, (keys[:, i], values[:, i]))
            kept.append([part[:, 1:] for part in both])
        keys, values = (torch.stack(part, 1) for part in zip(*kept))
        return self.norm(x)[:, 0], (keys, values, read + 1)

    def _turns(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        """`(M,)` places to the unit complex numbers `(M, 1, d / 2)` that queries and keys are turned by."""
        dtype = torch.promote_types(dtype, torch.float32)
        steps = torch.arange(0, self.head_dim, 2, dtype=dtype, device=places.device) / self.head_dim
        angles = places.to(dtype)[:, None] * BASE**-steps
        return torch.polar(torch.ones_like(angles), angles)[:, None]


def build(config: Config, vocab_size: int) -> TransformerPrediction:
    """The network for a vocabulary."""
    return TransformerPrediction(config, vocab_size)
