"""One sequence reads another: multi-head attention between packed sequences of different lengths."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from speechkit.errors import InputError
from speechkit.layers.attention import attend
from speechkit.layers.masks import Packing, padding_mask
from speechkit.layers.positions import rotate

Clocks = tuple[Tensor, Tensor]
"""Packed `(N,)` times of what looks and `(M,)` of what is looked at, on one scale."""

SLOWEST = 32.0
"""The slowest pair of dimensions turns once in 2 SLOWEST units of the clock."""
PRIOR = 6.0
"""Logits by which two things of the same time stand out at first."""


def check_heads(dim: int, heads: int) -> None:
    """Raises InputError unless the heads divide the dimension."""
    if heads < 1 or dim % heads:
        raise InputError(f"heads={heads} does not divide the dimension {dim}; choose a divisor")


def set_to_zero(linear: nn.Linear) -> None:
    """Makes a layer's output zero, whatever goes in: a residual branch then begins as nothing."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


class CrossAttention(nn.Module):
    """Frames (or tokens) look at another sequence, the memory (Vaswani et al., 2017, section 3.2).

    Padded tensors are packed first: `Packing(lengths).pack(x)`, see `speechkit.layers.masks`.

    Args:
        query_dim: D of the frames and of the result.
        memory_dim: dimension of the sequence looked at.
        heads: H, a divisor of D.
        dropout: of attention weights.
        norm: layer-normalise both sequences on the way in.
        zero_init: the result is zero until the output projection has learnt.
        clock: both sides have a time, and at first look at what has their own: queries and keys are turned by
            it (Su et al., 2021), and their biases are equal, so that the product of the biases, a sum of
            cosines of the difference of times, has its highest peak at no difference.

    Raises:
        InputError: the heads do not divide D, or leave an odd dimension with a clock.
    """

    def __init__(
        self,
        query_dim: int,
        memory_dim: int,
        heads: int,
        dropout: float = 0.0,
        norm: bool = False,
        zero_init: bool = False,
        clock: bool = False,
    ) -> None:
        super().__init__()
        check_heads(query_dim, heads)
        self.heads, self.dropout = heads, dropout
        self.query_norm = nn.LayerNorm(query_dim) if norm else nn.Identity()
        self.memory_norm = nn.LayerNorm(memory_dim) if norm else nn.Identity()
        self.query = nn.Linear(query_dim, query_dim)
        self.key_value = nn.Linear(memory_dim, 2 * query_dim)
        self.out = nn.Linear(query_dim, query_dim)
        if zero_init:
            set_to_zero(self.out)
        self.clock = clock
        if clock:
            pairs, odd = divmod(query_dim // heads, 2)
            if odd:
                raise InputError(
                    f"heads={heads} leaves an odd dimension of {query_dim}, which no clock can turn"
                )
            rates = math.pi * SLOWEST ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
            self.register_buffer("rates", rates, persistent=False)
            self.expect_same_time()

    @torch.no_grad()
    def expect_same_time(self) -> None:
        """Makes the biases those of the prior."""
        dim = self.query.out_features
        bias = math.sqrt(PRIOR / math.sqrt(dim // self.heads))
        self.query.bias.fill_(bias)
        self.key_value.bias[:dim] = bias

    def forward(
        self,
        x: Tensor,
        packing: Packing,
        memory: Tensor,
        memory_packing: Packing,
        clocks: Clocks | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            x: `(N, D)` packed frames.
            packing: where the utterances lie in `x`.
            memory: `(M, memory_dim)` packed, or what `remember` made of it.
            memory_packing: where they lie in `memory`.
            clocks: times, for an attention with a clock; without them it has none.

        Returns:
            `(N, D)`; for an utterance without memory, what the output projection makes of zeros.
        """
        q, k, v = self._project(x, memory, clocks)
        out = attend(q, k, v, packing, memory_packing, self.dropout if self.training else 0.0)
        return self.out(out.flatten(1))

    def remember(self, memory: Tensor) -> Tensor:
        """Keys and values `(M, 2, H, d)` of a packed `(M, memory_dim)`, made once for several readings."""
        return self.key_value(self.memory_norm(memory)).unflatten(-1, (2, self.heads, -1))

    def maps(
        self,
        x: Tensor,
        packing: Packing,
        memory: Tensor,
        memory_packing: Packing,
        clocks: Clocks | None = None,
    ) -> Tensor:
        """What `forward` attends to, computed anew for pictures, without dropout.

        Returns:
            `(B, H, T, M)` weights: each row of a valid frame sums to 1; zeros at padding.
        """
        q, k, _ = self._project(x, memory, clocks)
        q, k = (p.unpack(y).transpose(1, 2) for p, y in ((packing, q), (memory_packing, k)))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.size(-1))
        beyond = padding_mask(memory_packing.lengths, memory_packing.width)[:, None, None]
        no_frame = padding_mask(packing.lengths, packing.width)[:, None, :, None]
        weights = scores.masked_fill(beyond, torch.finfo(scores.dtype).min).softmax(-1)
        return weights.masked_fill(beyond | no_frame, 0)

    def _project(self, x: Tensor, memory: Tensor, clocks: Clocks | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `(N, H, d)`, keys and values `(M, H, d)`."""
        q = self.query(self.query_norm(x)).unflatten(-1, (self.heads, -1))
        k, v = (memory if memory.dim() == 4 else self.remember(memory)).unbind(1)
        if self.clock and clocks is not None:
            q, k = (rotate(y, self._turns(times, y.dtype)) for y, times in zip((q, k), clocks))
        return q, k, v

    def _turns(self, times: Tensor, dtype: torch.dtype) -> Tensor:
        """`(N, 1, d / 2)` unit complex numbers."""
        angles = times.double()[:, None] * self.rates
        turns = torch.polar(torch.ones_like(angles), angles)[:, None]
        return turns if dtype == torch.float64 else turns.to(torch.complex64)
