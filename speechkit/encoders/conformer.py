"""The Conformer encoder (Gulati et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from speechkit.config import check_range
from speechkit.encoders.stack import BlockEncoder
from speechkit.layers import subsampling
from speechkit.layers.adapters import Bottleneck, Lora, adapt
from speechkit.layers.conformer_block import ConformerBlock, Shape
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.positions import build_positions


@dataclass
class Config:
    """Conformer; the defaults are a model of about a million parameters for hours of speech."""

    name: str = "conformer"
    """The encoder's kind."""

    dim: int = 144
    """Model dimension D."""

    layers: int = 4
    """Number of blocks."""

    heads: int = 4
    """Attention heads, a divisor of `dim`."""

    feed_forward: int = 288
    """Inner dimension of the two feed-forward parts of a block; 4 x dim in the paper."""

    kernel: int = 15
    """Frames of the depthwise convolution, odd; 31 in the paper, on 40 ms frames."""

    conv_norm: Literal["layer", "batch", "group"] = "layer"
    """Norm inside the convolution module; `batch` as published, for foreign checkpoints."""

    positions: Literal["rotary", "relative", "sinusoidal", "none"] = "rotary"
    """`relative` (Transformer-XL's) as published, for foreign checkpoints: slow on a CPU."""

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

    fusion_position: Literal["after_mhsa", "after_conv", "before_mhsa"] = "after_mhsa"
    """Where in a block that sequence is read: next to the self-attention or after the convolution."""

    second_attention: int | None = None
    """Width of a second self-attention at that place, for a system with as many parameters that reads no
    other sequence; null builds none."""

    mask_embedding: bool = False
    """Build the learned vector that replaces masked frames (masked prediction)."""

    norm_eps: float = 1e-5
    """Added to the variance in layer norms; 1e-12 in ESPnet's checkpoints."""

    checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""

    lora: Lora | None = None
    """Low-rank changes of linear layers, such as `targets: [qkv, out]`, instead of training them; null for
    none."""

    adapter: Bottleneck | None = None
    """Bottlenecks inside the blocks, instead of training them; null for none."""

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "feed_forward", "kernel"):
            check_range(name, getattr(self, name), 1)
        check_range("norm_eps", self.norm_eps, 0, 1)
        for name in ("dropout", "attention_dropout"):
            check_range(name, getattr(self, name), 0, 1, open_high=True)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} must be odd")
        if self.second_attention is not None:
            check_range("second_attention", self.second_attention, 1)
        _shape(self)


def _shape(config: Config) -> Shape:
    return Shape(
        dim=config.dim,
        heads=config.heads,
        feed_forward=config.feed_forward,
        activation="silu",
        positions=config.positions,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        shared_dropout=config.shared_dropout,
        context_dim=config.context_dim,
        norm_eps=config.norm_eps,
        fusion_position=config.fusion_position,
        second_attention=config.second_attention,
    )


def build(config: Config, input_dim: int) -> nn.Module:
    """The encoder for `input_dim` features."""
    shape = _shape(config)
    encoder = BlockEncoder(
        subsampling.build(config.subsampling, input_dim, config.dim),
        build_positions(config.positions, config.dim, config.heads),
        (ConformerBlock(shape, config.kernel, config.conv_norm) for _ in range(config.layers)),
        config.dim,
        dropout=FrameDropout(config.dropout, config.shared_dropout),
        final_norm=shape.norm(),
        mask_embedding=config.mask_embedding,
        checkpointing=config.checkpointing,
    )
    adapt(encoder, config.dim, config.lora, config.adapter)
    return encoder
