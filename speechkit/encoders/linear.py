"""No context at all: features that say enough by themselves, such as the outputs of a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.encoders import EncoderOutput
from speechkit.encoders.masking import hide
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing


@dataclass
class Config:
    """Frame by frame: a layer norm, a linear layer if asked for, and dropout."""

    name: str = "linear"
    """The encoder's kind."""

    dim: int | None = None
    """Dimension after a linear layer and GELU; null keeps the features' own, without that layer."""

    norm: bool = True
    """Normalise each frame first, as outputs of inner blocks are of any size."""

    dropout: float = 0.1
    """Probability of dropping a value of the result."""

    mask_embedding: bool = False
    """Build the learned vector that replaces masked frames."""

    def __post_init__(self) -> None:
        if self.dim is not None:
            check_range("dim", self.dim, 1)
        check_range("dropout", self.dropout, 0, 1, open_high=True)


class LinearEncoder(nn.Module):
    """Every frame by itself.

    Args:
        config: see `Config`.
        input_dim: F.
    """

    takes = "features"
    stride = 1

    def __init__(self, config: Config, input_dim: int) -> None:
        super().__init__()
        self.output_dim = self.local_dim = config.dim or input_dim
        self.norm = nn.LayerNorm(input_dim) if config.norm else nn.Identity()
        self.layer = nn.Sequential()
        if config.dim is not None:
            self.layer.extend([nn.Linear(input_dim, config.dim), nn.GELU()])
        self.dropout = FrameDropout(config.dropout)
        self.mask_embedding = None
        if config.mask_embedding:
            self.mask_embedding = nn.Parameter(torch.empty(self.output_dim).uniform_())
        self.keep_hidden_states = self.keep_local = False

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames: as many."""
        return lengths

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        *,
        mask: Tensor | None = None,
        channel_mask: Tensor | None = None,
        context: Tensor | None = None,
        context_lengths: Tensor | None = None,
    ) -> EncoderOutput:
        """Encodes; arguments as for `speechkit.encoders.stack.BlockEncoder`.

        Raises:
            ValueError: a context, or a mask without `mask_embedding: true`.
        """
        if context is not None:
            raise ValueError("the linear encoder reads no context; use conformer or transformer")
        packing = Packing(lengths)
        plain = self.layer(self.norm(packing.pack(x)))
        hidden = hide(plain, packing, self.mask_embedding, mask, channel_mask)
        local = packing.unpack(plain) if self.keep_local else None
        states = [packing.unpack(hidden)] if self.keep_hidden_states else None
        return EncoderOutput(packing.unpack(self.dropout(hidden, packing)), lengths, states, local)


def build(config: Config, input_dim: int) -> nn.Module:
    """The encoder for `input_dim` features."""
    return LinearEncoder(config, input_dim)
