"""The decoder of Listen, Attend and Spell (Chan et al., 2016): LSTMs that look at the frames at every token.

    context_i = attention(state_{i-1});  state_i = LSTM(state_{i-1}, [token_{i-1}, context_i])
    phi_i = tanh(P [state_i, context_i]);  logits_i = W phi_i + b

The state that asks is that of the lowest LSTM, as in Bahdanau et al. (2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.decoders.attention import AdditiveAttention

Memory = tuple[Tensor, Tensor, Tensor]


@dataclass
class Config:
    """LSTMs with attention; the defaults are for hours of speech."""

    name: str = "las"
    """The decoder's kind."""

    embedding: int = 256
    """Dimension of a token's embedding."""

    cells: int = 256
    """Cells of each LSTM."""

    layers: int = 1
    """LSTMs, one on the other."""

    attention: Literal["additive", "location"] = "location"
    """`location` also knows where it looked before, which keeps it from losing its way in long utterances."""

    attention_dim: int = 256
    """Dimension of the space in which states and frames meet."""

    channels: int = 10
    """Features of where it looked before, with `attention: location`."""

    kernel: int = 201
    """Frames that each of these sees, odd."""

    sharpness: float = 2.0
    """Factor of the energies before the softmax over frames."""

    context: bool = True
    """The output sees what was found among the frames beside the state."""

    projection: int | None = 256
    """Dimension of phi; null leaves out the projection and its tanh."""

    dropout: float = 0.1
    """Probability of dropping a value of embeddings, of what an LSTM gives to the next layer, and of phi."""

    def __post_init__(self) -> None:
        for name in ("embedding", "cells", "layers", "attention_dim", "channels", "kernel"):
            check_range(name, getattr(self, name), 1)
        if self.projection is not None:
            check_range("projection", self.projection, 1)
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        if not self.sharpness > 0:
            raise ValueError(f"sharpness={self.sharpness} must be above 0")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} must be odd")


class State(NamedTuple):
    """What N hypotheses have become.

    Attributes:
        hidden: `(N, layers, cells)`.
        cell: `(N, layers, cells)`.
        weights: `(N, T)` where each looked last.
    """

    hidden: Tensor
    cell: Tensor
    weights: Tensor


class LasDecoder(nn.Module):
    """See `speechkit.decoders`.

    Args:
        config: see `Config`.
        vocab_size: V.
        input_dim: D of the encoder's frames.
    """

    def __init__(self, config: Config, vocab_size: int, input_dim: int) -> None:
        super().__init__()
        cells = config.cells
        self.embedding = nn.Embedding(vocab_size, config.embedding)
        channels = config.channels if config.attention == "location" else 0
        self.attention = AdditiveAttention(
            input_dim, cells, config.attention_dim, channels, config.kernel, config.sharpness
        )
        sizes = [config.embedding + input_dim] + [cells] * (config.layers - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, cells) for size in sizes)
        self.context = config.context
        seen = cells + (input_dim if config.context else 0)
        self.projection = nn.Linear(seen, config.projection) if config.projection else None
        self.output_dim = config.projection or seen
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.output_dim, vocab_size)

    def forward(self, tokens: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        """`(B, U)` tokens, frames `(B, T, D)` and `(B,)` lengths to phi `(B, U, output_dim)`."""
        return self._phi(self._read(tokens, frames, lengths)[0])

    def maps(self, tokens: Tensor, frames: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Where each token looked, `(B, 1, U, T)`."""
        return {"attention": self._read(tokens, frames, lengths)[1][:, None]}

    def _read(self, tokens: Tensor, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the projection sees `(B, U, S)`, and weights `(B, U, T)`."""
        memory = self.remember(frames, lengths)
        state, seen, weights = self.start(memory), [], []
        for embedded in self.dropout(self.embedding(tokens)).unbind(1):
            now, state = self._advance(embedded, memory, state)
            seen.append(now)
            weights.append(state.weights)
        return torch.stack(seen, 1), torch.stack(weights, 1)

    # ---- token by token ---------------------------------------------------------------------------------

    def remember(self, frames: Tensor, lengths: Tensor) -> Memory:
        """See `AdditiveAttention.remember`."""
        return self.attention.remember(frames, lengths)

    def start(self, memory: Memory) -> State:
        """States of zeros, which looked at all frames alike."""
        zeros = memory[0].new_zeros(len(memory[0]), len(self.cells), self.cells[0].hidden_size)
        return State(zeros, zeros, self.attention.everywhere(memory))

    def step(self, tokens: Tensor, rows: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """See `speechkit.decoders.Decoder`."""
        state = State(*(part.index_select(0, rows) for part in state))
        seen, state = self._advance(self.dropout(self.embedding(tokens)), memory, state)
        return self._phi(seen), state

    def _advance(self, embedded: Tensor, memory: Memory, state: State) -> tuple[Tensor, State]:
        """What the projection sees `(N, S)`, and the new state; `embedded` is `(N, E)`."""
        shape = (len(memory[0]), -1)
        asking = self.dropout(state.hidden[:, 0]).unflatten(0, shape)
        context, weights = self.attention(asking, memory, state.weights.unflatten(0, shape))
        context, weights = context.flatten(0, 1), weights.flatten(0, 1)
        hidden, cells, x = [], [], torch.cat([embedded, context], -1)
        for i, layer in enumerate(self.cells):
            h, c = layer(x, (state.hidden[:, i], state.cell[:, i]))
            hidden.append(h)
            cells.append(c)
            x = self.dropout(h)
        seen = torch.cat([x, context], -1) if self.context else x
        return seen, State(torch.stack(hidden, 1), torch.stack(cells, 1), weights)

    def _phi(self, seen: Tensor) -> Tensor:
        """`(..., S)` to `(..., output_dim)`."""
        return seen if self.projection is None else self.dropout(self.projection(seen).tanh())


def build(config: Config, vocab_size: int, input_dim: int) -> LasDecoder:
    """The decoder for V tokens and an encoder of D."""
    return LasDecoder(config, vocab_size, input_dim)
