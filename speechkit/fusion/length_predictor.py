"""How many tokens an utterance holds, from its frames: the [LENGTH] token of Mask-Predict and AB-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.layers.cross_attention import CrossAttention
from speechkit.layers.masks import Packing


class LengthPredictor(nn.Module):
    """A learned query reads the frames, and one linear layer tells the length (Ghazvininejad et al., 2019).

    There the query stands before the source sentence, inside its encoder; here the encoder is one of speech,
    which has no place for tokens, so that the query reads what it gives out.

    Args:
        acoustic_dim: of the frames.
        dim: of the query.
        heads: of attention, a divisor of `dim`.
        longest: most tokens.

    Raises:
        InputError: the heads do not divide the dimension.
    """

    def __init__(self, acoustic_dim: int, dim: int, heads: int, longest: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, dim))
        self.attention = CrossAttention(dim, acoustic_dim, heads, norm=True)
        self.out = nn.Linear(dim, longest + 1)

    def forward(self, acoustic: Tensor, lengths: Tensor) -> Tensor:
        """Frames `(B, T, acoustic_dim)`, padded with anything, to logits `(B, longest + 1)` of lengths."""
        frames, ones = Packing(lengths), Packing(torch.ones_like(lengths))
        queries = self.query.expand(len(lengths), -1)
        return self.out(self.attention(queries, ones, frames.pack(acoustic), frames))
