"""Bidirectional LSTMs with projections (Sak et al., 2014), optionally a pyramid (Chan et al., 2016).

ESPnet's `blstmp` is `subsampling: {kind: none, factor: 1}` with `strides`, its `vggblstmp` is `subsampling:
{kind: vgg}`; both with `linear_end: true`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.encoders import EncoderOutput
from speechkit.encoders.masking import hide
from speechkit.layers import subsampling
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing


@dataclass
class Config:
    """BLSTM with projections, behind convolutional subsampling."""

    name: str = "blstm"
    """The encoder's kind."""

    cells: int = 192
    """Cells of an LSTM in each direction."""

    projection: int | None = 192
    """Dimension after each layer, through a linear layer and tanh; null keeps the 2 x cells."""

    layers: int = 3
    """Number of bidirectional layers."""

    strides: list[int] = field(default_factory=list)
    """Keep every n-th frame after each layer (pyramid), one number a layer; empty keeps all."""

    linear_end: bool = False
    """The last layer's projection has no tanh."""

    dropout: float = 0.1
    """Probability of dropping a value of each layer's output."""

    shared_dropout: bool = False
    """One dropout mask for all frames of an utterance: faster on a CPU."""

    subsampling: subsampling.Config = field(default_factory=subsampling.Config)
    """The first stage: from feature frames to encoder frames. `vgg` and `none` have no linear layer before
    the first LSTM."""

    mask_embedding: bool = False
    """Build the learned vector that replaces masked frames (masked prediction)."""

    def __post_init__(self) -> None:
        for name in ("cells", "layers"):
            check_range(name, getattr(self, name), 1)
        if self.projection is not None:
            check_range("projection", self.projection, 1)
        elif self.linear_end:
            raise ValueError("linear_end=true needs a projection")
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        if self.strides and (len(self.strides) != self.layers or min(self.strides) < 1):
            raise ValueError(f"strides={self.strides} must hold {self.layers} numbers of at least 1, or none")


class BlstmLayer(nn.Module):
    """One bidirectional layer as two one-way LSTMs over padded sequences.

    The backward one reads each utterance from its own last frame, so padding is only ever read after
    the frames that count: 4 times faster on a CPU than `pack_padded_sequence`.
    """

    def __init__(self, dim: int, cells: int, projection: int | None) -> None:
        super().__init__()
        self.tanh = True  # after the projection
        self.ahead = nn.LSTM(dim, cells, batch_first=True)
        self.back = nn.LSTM(dim, cells, batch_first=True)
        self.projection = nn.Linear(2 * cells, projection) if projection else None
        self.reset_parameters(cells)

    @torch.no_grad()
    def reset_parameters(self, cells: int) -> None:
        """Remembers at first (forget bias 1; Jozefowicz et al., 2015), and keeps the scale through tanh."""
        for lstm in (self.ahead, self.back):
            lstm.bias_ih_l0[cells : 2 * cells] = 1
            lstm.bias_hh_l0[cells : 2 * cells] = 0
        if self.projection is not None:
            nn.init.xavier_uniform_(self.projection.weight, nn.init.calculate_gain("tanh"))
            nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """`(N, D)` packed frames to `(N, projection or 2 * cells)`."""
        if torch.is_autocast_enabled(x.device.type):  # which leaves it to the caller
            x = x.to(torch.get_autocast_dtype(x.device.type))
        reverse = reversal(packing)
        ahead, _ = self.ahead(packing.unpack(x))
        back, _ = self.back(packing.unpack(x.index_select(0, reverse)))
        x = torch.cat([packing.pack(ahead), packing.pack(back).index_select(0, reverse)], dim=-1)
        if self.projection is None:
            return x
        return self.projection(x).tanh() if self.tanh else self.projection(x)


def reversal(packing: Packing) -> Tensor:
    """`(N,)` indices that turn each utterance of a packed tensor around; its own inverse."""
    starts = packing.offsets[:-1].long().index_select(0, packing.utterance)
    last = packing.lengths.index_select(0, packing.utterance) - 1
    return starts + last - packing.positions


class BlstmEncoder(nn.Module):
    """Subsampling, then bidirectional layers.

    Args:
        config: see `Config`.
        input_dim: F.
    """

    takes = "features"

    def __init__(self, config: Config, input_dim: int) -> None:
        super().__init__()
        self.output_dim = config.projection or 2 * config.cells
        self.strides = config.strides or [1] * config.layers
        self.subsampling = subsampling.build(config.subsampling, input_dim, self.output_dim, linear=False)
        self.local_dim = self.masked_dim = self.subsampling.output_dim
        self.stride = self.subsampling.factor * math.prod(self.strides)
        dims = [self.local_dim] + [self.output_dim] * (config.layers - 1)
        self.layers = nn.ModuleList(BlstmLayer(dim, config.cells, config.projection) for dim in dims)
        self.layers[-1].tanh = not config.linear_end
        self.dropout = FrameDropout(config.dropout, config.shared_dropout)
        self.mask_embedding = None
        if config.mask_embedding:
            self.mask_embedding = nn.Parameter(torch.empty(self.local_dim).uniform_())
        self.keep_hidden_states = self.keep_local = False

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames."""
        lengths = self.subsampling.output_lengths(lengths)
        for stride in self.strides:
            lengths = torch.div(lengths + stride - 1, stride, rounding_mode="floor")
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
        """Encodes; arguments as for `speechkit.encoders.stack.BlockEncoder`, without a context.

        With `strides`, a mask and `local` have the frames of the first layer, more than the output has.

        Raises:
            ValueError: a context, or a mask without `mask_embedding: true`.
        """
        if context is not None:
            raise ValueError("the blstm encoder reads no context; use conformer or transformer")
        x, packing = self.subsampling(x, lengths)
        if packing.total == 0:
            nothing = x.new_zeros(len(lengths), 0, self.output_dim)
            local = x.new_zeros(len(lengths), 0, self.local_dim) if self.keep_local else None
            return EncoderOutput(nothing, packing.lengths, local=local)
        local = packing.unpack(x) if self.keep_local else None
        x = hide(x, packing, self.mask_embedding, mask, channel_mask)
        states = [packing.unpack(x)] if self.keep_hidden_states else None
        for layer, stride in zip(self.layers, self.strides):
            x, packing = thin(self.dropout(layer(x, packing), packing), packing, stride)
            if states is not None:
                states.append(packing.unpack(x))
        return EncoderOutput(packing.unpack(x), packing.lengths, states, local)


def thin(x: Tensor, packing: Packing, stride: int) -> tuple[Tensor, Packing]:
    """Keeps the frames 0, stride, 2 * stride ... of each utterance."""
    if stride == 1:
        return x, packing
    kept = (packing.positions % stride == 0).nonzero().squeeze(1)
    lengths = torch.div(packing.lengths + stride - 1, stride, rounding_mode="floor")
    return x.index_select(0, kept), Packing(lengths)


def build(config: Config, input_dim: int) -> nn.Module:
    """The encoder for `input_dim` features."""
    return BlstmEncoder(config, input_dim)
