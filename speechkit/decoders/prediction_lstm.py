"""Prediction network of LSTMs (Graves, 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.decoders.prediction import Memory


@dataclass
class Config:
    """Embedding and LSTMs."""

    name: str = "lstm"
    """The network's kind."""

    embedding: int = 128
    """Dimension of a label's embedding."""

    cells: int = 320
    """Cells of each LSTM."""

    layers: int = 1
    """LSTMs, one on the other."""

    dropout: float = 0.1
    """Probability of dropping a value of the embeddings, and between LSTMs."""

    def __post_init__(self) -> None:
        for name in ("embedding", "cells", "layers"):
            check_range(name, getattr(self, name), 1)
        check_range("dropout", self.dropout, 0, 1, open_high=True)


class LstmPrediction(nn.Module):
    """See `speechkit.decoders.prediction.Prediction`; the memory is `(N, layers, cells)`, hidden and cell.

    Args:
        config: see `Config`.
        vocab_size: V, the blank included.
        blank: id of the blank.
    """

    def __init__(self, config: Config, vocab_size: int, blank: int = 0) -> None:
        super().__init__()
        self.output_dim = config.cells
        self.embedding = nn.Embedding(vocab_size, config.embedding, padding_idx=blank)
        self.dropout = nn.Dropout(config.dropout)
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(config.embedding, config.cells, config.layers, batch_first=True, dropout=between)
        self.blank = blank

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, U)` labels to `(B, U + 1, D)`."""
        begun = nn.functional.pad(tokens, (1, 0), value=self.blank)
        return self.lstm(self.dropout(self.embedding(begun)))[0]

    def start(self, count: int) -> tuple[Tensor, Memory]:
        """`(N, D)` after no label, and the memory of it."""
        weight = self.embedding.weight
        zeros = weight.new_zeros(count, self.lstm.num_layers, self.output_dim)
        nothing = torch.full((count,), self.blank, device=weight.device)
        return self.step(nothing, (zeros, zeros))

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """`(N, D)` after one more label each, `(N,)`, and the new memory."""
        before = tuple(part.transpose(0, 1).contiguous() for part in memory)
        output, after = self.lstm(self.dropout(self.embedding(tokens))[:, None], before)
        return output[:, 0], tuple(part.transpose(0, 1) for part in after)


def build(config: Config, vocab_size: int) -> LstmPrediction:
    """The network for a vocabulary."""
    return LstmPrediction(config, vocab_size)
