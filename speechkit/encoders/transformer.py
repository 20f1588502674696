"""The Transformer encoder (Vaswani et al., 2017), with the norm before (pre-LN) or after each part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from speechkit.config import check_range
from speechkit.encoders.stack import BlockEncoder
from speechkit.layers import subsampling
from speechkit.layers.adapters import Bottleneck, Lora, adapt
from speechkit.layers.conformer_block import Shape, TransformerBlock
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.positions import build_positions


@dataclass
class Config:
    """Transformer; the defaults are a model of about a million parameters for hours of speech."""

    name: str = "transformer"
    """The encoder's kind."""

    dim: int = 144
    """Model dimension D."""

    layers: int = 6
    """Number of blocks."""

    heads: int = 4
    """Attention heads, a divisor of `dim`."""

    feed_forward: int = 576
    """Inner dimension of the feed-forward parts."""

    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Of the feed-forward parts."""

    norm: Literal["pre", "post"] = "pre"
    """Normalise the input of each part (trains without warm-up tricks), or each sum (as published)."""

    positions: Literal["rotary", "relative", "sinusoidal", "none"] = "rotary"
    """`sinusoidal` as published."""

    lora: Lora | None = None
    """Low-rank changes of linear layers, such as `targets: [qkv, out]`, instead of training them; null for
    none."""

    adapter: Bottleneck | None = None
    """Bottlenecks inside the blocks, instead of training them; null for none."""

    dropout: float = 0.1
    """Probability of dropping a value after each part and inside the feed-forward parts."""

    attention_dropout: float = 0.0
    """Probability of dropping an attention weight; more than 0 is slow on a CPU."""

    shared_dropout: bool = False
    """One dropout mask for all frames of an utterance: faster on a CPU."""

    subsampling: subsampling.Config = field(default_factory=subsampling.Config)
    """The first stage: from feature frames to encoder frames."""

    context_dim: int | None = None
    """Dimension of a second sequence that every block reads by cross-attention; null builds none."""

    mask_embedding: bool = False
    """Build the learned vector that replaces masked frames (masked prediction)."""

    norm_eps: float = 1e-5
    """Added to the variance in layer norms; 1e-12 in ESPnet's checkpoints."""

    checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "feed_forward"):
            check_range(name, getattr(self, name), 1)
        check_range("norm_eps", self.norm_eps, 0, 1)
        for name in ("dropout", "attention_dropout"):
            check_range(name, getattr(self, name), 0, 1, open_high=True)
        _shape(self)


def _shape(config: Config) -> Shape:
    return Shape(
        dim=config.dim,
        heads=config.heads,
        feed_forward=config.feed_forward,
        activation=config.activation,
        positions=config.positions,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        shared_dropout=config.shared_dropout,
        context_dim=config.context_dim,
        norm_eps=config.norm_eps,
    )


def build(config: Config, input_dim: int) -> nn.Module:
    """The encoder for `input_dim` features."""
    shape = _shape(config)
    encoder = BlockEncoder(
        subsampling.build(config.subsampling, input_dim, config.dim),
        build_positions(config.positions, config.dim, config.heads),
        (TransformerBlock(shape, config.norm == "pre") for _ in range(config.layers)),
        config.dim,
        dropout=FrameDropout(config.dropout, config.shared_dropout),
        final_norm=shape.norm() if config.norm == "pre" else nn.Identity(),
        mask_embedding=config.mask_embedding,
        checkpointing=config.checkpointing,
    )
    adapt(encoder, config.dim, config.lora, config.adapter)
    return encoder
