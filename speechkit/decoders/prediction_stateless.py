"""Prediction network that sees the last few labels alone (Ghodsi et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.decoders.prediction import Memory


@dataclass
class Config:
    """Embedding and a convolution."""

    name: str = "stateless"
    """The network's kind."""

    dim: int = 320
    """Dimension of a label's embedding, and of the output."""

    context: int = 2
    """Labels that are seen, the last one included."""

    dropout: float = 0.1
    """Probability of dropping a value of the output."""

    def __post_init__(self) -> None:
        for name in ("dim", "context"):
            check_range(name, getattr(self, name), 1)
        check_range("dropout", self.dropout, 0, 1, open_high=True)


class StatelessPrediction(nn.Module):
    """See `speechkit.decoders.prediction.Prediction`; the memory is `(N, context)`, the last labels.

    Args:
        config: see `Config`.
        vocab_size: V, the blank included.
        blank: id of the blank.
    """

    def __init__(self, config: Config, vocab_size: int, blank: int = 0) -> None:
        super().__init__()
        self.output_dim, self.context, self.blank = config.dim, config.context, blank
        self.embedding = nn.Embedding(vocab_size, config.dim, padding_idx=blank)
        self.mix = nn.Conv1d(config.dim, config.dim, config.context, groups=config.dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, U)` labels to `(B, U + 1, D)`."""
        begun = nn.functional.pad(tokens, (self.context, 0), value=self.blank)
        return self._see(begun)

    def _see(self, tokens: Tensor) -> Tensor:
        seen = self.mix(self.embedding(tokens).transpose(1, 2)).relu()
        return self.dropout(seen.transpose(1, 2))

    def start(self, count: int) -> tuple[Tensor, Memory]:
        """`(N, D)` after no label, and the memory of it."""
        nothing = torch.full((count, self.context), self.blank, device=self.embedding.weight.device)
        return self._see(nothing)[:, 0], (nothing,)

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """`(N, D)` after one more label each, `(N,)`, and the new memory."""
        last = torch.cat([memory[0][:, 1:], tokens[:, None]], 1)
        return self._see(last)[:, 0], (last,)


def build(config: Config, vocab_size: int) -> StatelessPrediction:
    """The network for a vocabulary."""
    return StatelessPrediction(config, vocab_size)
