"""The blocks that Wav-BERT's two fusion modules are made of, and the settings that they share.

The paper (Zheng et al., 2021) gives neither norms nor initial values. Here, by default, norms stand on the
way into a block and none after its sum, and what a block adds is zero at first: with pre-trained encoders
on both sides, training begins from what they know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.fusion.gate import Gate
from speechkit.layers.attention import SelfAttention
from speechkit.layers.cross_attention import Clocks, CrossAttention, check_heads, set_to_zero
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing

IDENTITY_GATE_BIAS = -2.0


@dataclass
class Config:
    """Settings of the fusion blocks; the defaults are the paper's where it has one."""

    heads: int = 8
    """Attention heads."""

    feed_forward: int = 2048
    """Inner dimension of the feed-forward layers."""

    gate: Literal["vector", "scalar", "none"] = "vector"
    """A gate for each dimension, one for all of a frame, or none: everything is let in (Phi = 1)."""

    norm: Literal["pre", "post", "none"] = "pre"
    """Layer norms on the way into each block, or after each sum (which then cannot begin as the identity)."""

    init: Literal["identity", "xavier"] = "identity"
    """`identity`: output projections begin at zero and gates at a bias of -2; `xavier`: everything random."""

    clock: bool = False
    """Attention between the two sides knows which frames CTC took for which token, and begins by looking
    there; the paper's must find out by itself."""

    dropout: float = 0.1
    """Probability of dropping a value of what is added, and inside the feed-forward layers."""

    attention_dropout: float = 0.1
    """Probability of dropping an attention weight."""

    def __post_init__(self) -> None:
        check_range("heads", self.heads, 1)
        check_range("feed_forward", self.feed_forward, 1)
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        check_range("attention_dropout", self.attention_dropout, 0, 1, open_high=True)

    def norm_in(self, dim: int) -> nn.Module:
        """What stands on the way into a block."""
        return nn.LayerNorm(dim) if self.norm == "pre" else nn.Identity()

    def norm_out(self, dim: int) -> nn.Module:
        """What stands after its sum."""
        return nn.LayerNorm(dim) if self.norm == "post" else nn.Identity()


def xavier_(module: nn.Module) -> None:
    """Xavier values in every linear layer, biases zero (Glorot and Bengio, 2010)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, CrossAttention) and part.clock:
            part.expect_same_time()


class GatedAttention(nn.Module):
    """`H + Phi * C`: a state and, through a gate, what it reads from the other modality.

    `C = ATT(Q=H, K=memory, V=memory)` and `Phi = sigmoid(W [C ; H] + B)`: equations 2, 4 and 5 of Zheng et
    al. (2021), equations 3, 6 and 7, and the gate of the embedding attention.

    Args:
        dim: D of the state.
        memory_dim: dimension of the other modality.
        config: see `Config`.
    """

    def __init__(self, dim: int, memory_dim: int, config: Config) -> None:
        super().__init__()
        identity = config.init == "identity"
        self.attention = CrossAttention(
            dim,
            memory_dim,
            config.heads,
            config.attention_dropout,
            config.norm == "pre",
            identity,
            config.clock,
        )
        self.dropout = FrameDropout(config.dropout, inplace=True)
        self.gate = None
        if config.gate != "none":
            self.gate = Gate(dim, config.gate == "scalar", IDENTITY_GATE_BIAS if identity else 0.0)
        self.norm = config.norm_out(dim)

    def forward(
        self,
        x: Tensor,
        packing: Packing,
        memory: Tensor,
        memory_packing: Packing,
        clocks: Clocks | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Reads and sums.

        Args:
            x: H, `(N, D)` packed.
            packing: where the utterances lie in `x`.
            memory: `(M, memory_dim)` packed.
            memory_packing: where they lie in `memory`.
            clocks: see `CrossAttention`.

        Returns:
            `(N, D)`, and Phi, `(N, D)` or `(N, 1)`; None without a gate.
        """
        context = self.dropout(self.attention(x, packing, memory, memory_packing, clocks), packing)
        gate = None if self.gate is None else self.gate(context, x)
        return self.norm(x + (context if gate is None else gate * context)), gate

    def pictures(
        self,
        x: Tensor,
        packing: Packing,
        memory: Tensor,
        memory_packing: Packing,
        gate: Tensor | None,
        clocks: Clocks | None = None,
    ) -> dict[str, Tensor]:
        """`attention` `(B, H, T, M)` and, if there is one, `gate` `(B, T, D)` or `(B, T, 1)`."""
        shown = {"attention": self.attention.maps(x, packing, memory, memory_packing, clocks)}
        return shown if gate is None else {**shown, "gate": packing.unpack(gate)}


class FeedForward(nn.Module):
    """`H + FFN(H)`.

    Args:
        dim: D.
        config: see `Config`.
        activation: between its two layers; dropout overwrites the result, so its gradient may not need it.
    """

    def __init__(self, dim: int, config: Config, activation: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        self.activation = activation
        self.norm_in, self.norm_out = config.norm_in(dim), config.norm_out(dim)
        self.inner = nn.Linear(dim, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, dim)
        self.dropout = FrameDropout(config.dropout, inplace=True)
        if config.init == "identity":
            set_to_zero(self.outer)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Returns `(N, D)`."""
        inner = self.dropout(self.activation(self.inner(self.norm_in(x))), packing)
        return self.norm_out(x + self.dropout(self.outer(inner), packing))


class SelfAttentionBlock(nn.Module):
    """Self-attention and a feed-forward layer, each around a residual.

    Args:
        dim: D.
        config: see `Config`.
    """

    def __init__(self, dim: int, config: Config) -> None:
        super().__init__()
        check_heads(dim, config.heads)
        self.norm_in, self.norm_out = config.norm_in(dim), config.norm_out(dim)
        self.attention = SelfAttention(dim, config.heads, config.attention_dropout)
        self.dropout = FrameDropout(config.dropout, inplace=True)
        self.feed_forward = FeedForward(dim, config)
        if config.init == "identity":
            set_to_zero(self.attention.out)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Returns `(N, D)`."""
        read = self.dropout(self.attention(self.norm_in(x), packing), packing)
        return self.feed_forward(self.norm_out(x + read), packing)
