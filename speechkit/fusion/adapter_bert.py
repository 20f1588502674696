"""Adapter-BERT: speech is read inside BERT, by an adapter after every block (AB-Net: Guo et al., 2020).

These are the adapters of AB-Net's decoder: after the feed-forward part of each of BERT's blocks, attention
to the encoder's output and a feed-forward layer, each with a residual and a layer norm. Here the encoder is
one of speech.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from speechkit.encoders.bert import Bert
from speechkit.fusion import blocks
from speechkit.fusion.blocks import FeedForward, GatedAttention, xavier_
from speechkit.layers.masks import Packing
from speechkit.layers.positions import add_positions


@dataclass
class Config(blocks.Config):
    """How the adapters are made. With `norm: pre` they begin as the identity: BERT as it was."""

    gate: Literal["vector", "scalar", "none"] = "none"
    """A gate on what is read from the speech; AB-Net has none."""

    norm: Literal["pre", "post", "none"] = "post"
    """Layer norms after each sum, as in AB-Net, or on the way into each part."""

    frame_positions: bool = False
    """Add absolute positions to the frames that are read. A place in a text that is all to be guessed has
    nothing else to find its frames by, and those of an encoder with rotary positions do not know their place;
    published without, as wav2vec 2.0's know from the edges of their convolutions."""


class Heard(NamedTuple):
    """Speech as the adapters read it.

    Attributes:
        keys_values: for each adapter, `(N, 2, H, d)` packed.
        packing: where the rows lie.
    """

    keys_values: list[Tensor]
    packing: Packing


def relu(x: Tensor) -> Tensor:
    """ReLU whose gradient needs its input, not its output."""
    return x.clamp(min=0)


class Adapter(nn.Module):
    """Attention to the speech and a feed-forward layer.

    Args:
        dim: D of BERT.
        acoustic_dim: of the speech.
        config: see `Config`.
    """

    def __init__(self, dim: int, acoustic_dim: int, config: Config) -> None:
        super().__init__()
        self.read = GatedAttention(dim, acoustic_dim, config)
        self.feed_forward = FeedForward(dim, config, relu)

    def forward(self, x: Tensor, packing: Packing, memory: Tensor, memory_packing: Packing) -> Tensor:
        """`(N, D)` packed output of a block to what the next one reads."""
        x, _ = self.read(x, packing, memory, memory_packing)
        return self.feed_forward(x, packing)


class BertAdapters(nn.Module):
    """One adapter for each of BERT's blocks; BERT itself is no part of this module.

    Args:
        config: see `Config`.
        layers: BERT's blocks.
        dim: D of BERT.
        acoustic_dim: of the speech.

    Raises:
        InputError: the heads do not divide D.
    """

    def __init__(self, config: Config, layers: int, dim: int, acoustic_dim: int) -> None:
        super().__init__()
        self.frame_positions = config.frame_positions
        self.adapters = nn.ModuleList(Adapter(dim, acoustic_dim, config) for _ in range(layers))
        if config.init == "xavier":
            xavier_(self)

    def hear(self, acoustic: Tensor, lengths: Tensor, copies: int = 1) -> Heard:
        """What all passes through BERT read of the speech, made once (Mask-Predict has ten of them).

        Args:
            acoustic: H_A, `(B, T, acoustic_dim)`; the padding may hold anything.
            lengths: `(B,)` frames.
            copies: rows of text for each utterance, one after the other.
        """
        packing = Packing(lengths)
        packed = packing.pack(acoustic)
        if self.frame_positions:
            packed = add_positions(packed, packing)
        keys_values = [adapter.read.attention.remember(packed) for adapter in self.adapters]
        if copies == 1:
            return Heard(keys_values, packing)
        copied = Packing(lengths.repeat_interleave(copies))
        rows = (packing.unpack(tensor).repeat_interleave(copies, 0) for tensor in keys_values)
        return Heard([copied.pack(tensor) for tensor in rows], copied)

    def forward(
        self, bert: Bert, x: Tensor, lengths: Tensor, heard: Heard, maps: list[Tensor] | None = None
    ) -> Tensor:
        """BERT's blocks with the adapters between them.

        Args:
            bert: with as many blocks as there are adapters.
            x: `(R, M, D)` from `bert.embed`.
            lengths: `(R,)` tokens, [CLS] and [SEP] counted, at least 1.
            heard: from `hear`, for R rows.
            maps: takes up the attention of each adapter, `(R, H, M, T)`, for pictures.

        Returns:
            `(R, max lengths, D)`, zeros at padding.
        """
        tokens = Packing(lengths)

        def adapt(number: int, state: Tensor) -> Tensor:
            sides = tokens.pack(state), tokens, heard.keys_values[number], heard.packing
            if maps is not None:
                maps.append(self.adapters[number].read.attention.maps(*sides))
            return tokens.unpack(self.adapters[number](*sides))

        return bert.layers(x[:, : tokens.width], lengths, adapt)
