"""The Transformer block of wav2vec 2.0 and HuBERT, its parameters named as in their public checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.layers.attention import attend
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing


@dataclass
class BlockShape:
    """Sizes and rates of a block; see `speechkit.encoders.wav2vec2_config` for what they mean."""

    dim: int
    heads: int
    feed_forward: int
    norm: str
    dropout: float
    attention_dropout: float
    activation_dropout: float
    norm_eps: float = 1e-5


class Attention(nn.Module):
    """Self-attention with a bias in all four projections.

    Args:
        dim: D.
        heads: H, a divisor of D.
        dropout: of attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """`(N, D)` packed frames to `(N, D)`."""
        if torch.is_autocast_enabled(x.device.type):  # once, not for each of the projections
            x = x.to(torch.get_autocast_dtype(x.device.type))
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = attend(q, k, v, packing, packing, self.rate if self.training else 0.0)
        return self.out_proj(out.flatten(1))


class FeedForward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(shape.dim, shape.feed_forward)
        self.intermediate_dropout = FrameDropout(shape.activation_dropout, inplace=True)
        self.output_dense = nn.Linear(shape.feed_forward, shape.dim)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """`(N, D)` packed frames to `(N, D)`."""
        x = F.gelu(self.intermediate_dense(x))
        return self.output_dense(self.intermediate_dropout(x, packing))


class Wav2Vec2Block(nn.Module):
    """Self-attention and feed-forward, each around a residual, with norms before them or after the sums."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.norm_first = shape.norm == "pre"
        self.attention = Attention(shape.dim, shape.heads, shape.attention_dropout)
        self.dropout = FrameDropout(shape.dropout, inplace=True)
        self.layer_norm = nn.LayerNorm(shape.dim, eps=shape.norm_eps)
        self.feed_forward = FeedForward(shape)
        self.final_layer_norm = nn.LayerNorm(shape.dim, eps=shape.norm_eps)

    def forward(self, x: Tensor, packing: Packing, positions: None = None, context: None = None) -> Tensor:
        """One block.

        Args:
            x: `(N, D)` packed frames.
            packing: where the utterances lie.
            positions: None; the input of the first block knows its positions.
            context: None; these blocks read no second sequence.

        Returns:
            `(N, D)`.
        """
        drop = self.dropout
        if self.norm_first:
            x = x + drop(self.attention(self.layer_norm(x), packing), packing)
            return x + drop(self.feed_forward(self.final_layer_norm(x), packing), packing)
        x = self.layer_norm(x + drop(self.attention(x, packing), packing))
        return self.final_layer_norm(x + drop(self.feed_forward(x, packing), packing))
