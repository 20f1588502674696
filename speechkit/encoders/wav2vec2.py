"""The encoder of wav2vec 2.0 (Baevski et al., 2020), XLSR (Conneau et al., 2021), HuBERT (Hsu et al., 2021).

Modules have the names of Hugging Face's `Wav2Vec2Model` and `HubertModel`: their weights load by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechkit.encoders import EncoderOutput
from speechkit.encoders.masking import hide
from speechkit.encoders.wav2vec2_config import Config
from speechkit.frontends.waveform_conv import WaveformConv, normalise_waveform
from speechkit.layers.adapters import adapt
from speechkit.layers.conformer_block import ConformerBlock, Shape
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing
from speechkit.layers.positional_conv import PositionalConv
from speechkit.layers.positions import RotaryPositions
from speechkit.layers.wav2vec2_block import BlockShape, Wav2Vec2Block

__all__ = ["Config", "Wav2Vec2Encoder", "build"]


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class FeatureProjection(nn.Module):
    """Layer norm of the convolutions' channels, or none, and a linear layer to D dimensions."""

    def __init__(self, channels: int, dim: int, eps: float, norm: bool) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(channels, eps=eps) if norm else nn.Identity()
        self.projection = nn.Linear(channels, dim)


class ContextNetwork(nn.Module):
    """Positions, then blocks.

    Args:
        config: see `Config`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer_drop, self.checkpointing = config.layer_drop, config.checkpointing
        self.norm_last = config.norm == "pre" or config.blocks == "conformer"
        self.layer_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.dropout = FrameDropout(config.dropout)
        if config.blocks == "conformer":
            self.positions = RotaryPositions(config.dim // config.heads)
            self.layers = nn.ModuleList(_conformer_block(config) for _ in range(config.layers))
        else:
            self.pos_conv_embed = PositionalConv(
                config.dim, config.pos_conv_kernel, config.pos_conv_groups, config.pos_conv_norm
            )
            self.layers = nn.ModuleList(_transformer_block(config) for _ in range(config.layers))

    def forward(self, x: Tensor, packing: Packing) -> tuple[Tensor, list[Tensor]]:
        """Encodes packed frames.

        Args:
            x: `(N, D)`.
            packing: where the utterances lie.

        Returns:
            `(N, D)`, and the input of the first block with the output of each, `(N, D)`. A block that
            LayerDrop (Fan et al., 2020) leaves out hands on its input.
        """
        x, positions = self._place(x, packing)
        states = [x]
        for block, kept in zip(self.layers, self._kept()):
            if kept and self.checkpointing and self.training:
                x = checkpoint(block, x, packing, positions, use_reentrant=False)
            elif kept:
                x = block(x, packing, positions)
            states.append(x)
        return self.layer_norm(x) if self.norm_last else x, states

    def _place(self, x: Tensor, packing: Packing) -> tuple[Tensor, Tensor | None]:
        """The input of the first block, and rotary turns for Conformer blocks."""
        if hasattr(self, "positions"):
            x, turns = self.positions(x, packing)
            return self.dropout(x, packing), turns
        x = x + self.pos_conv_embed(x, packing)
        return self.dropout(x if self.norm_last else self.layer_norm(x), packing), None

    def _kept(self) -> list[bool]:
        """Which blocks take part, drawn from the global generator in training."""
        if not self.training or self.layer_drop == 0:
            return [True] * len(self.layers)
        return (torch.rand(len(self.layers), device="cpu") >= self.layer_drop).tolist()


class Wav2Vec2Encoder(nn.Module):
    """Convolutions over samples, then a context network over their frames.

    Args:
        config: see `Config`.
    """

    takes = "speech"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.feature_extractor = WaveformConv(
            config.conv_channels,
            config.conv_kernels,
            config.conv_strides,
            config.conv_bias,
            config.extractor,
            config.pad_policy,
            config.checkpointing,
            config.pad_mask,
        )
        self.feature_projection = FeatureProjection(
            config.conv_channels[-1], config.dim, config.norm_eps, config.feature_norm
        )
        self.input_dropout = FrameDropout(config.input_dropout)
        self.masked_spec_embed = nn.Parameter(torch.empty(config.dim).uniform_())
        self.encoder = ContextNetwork(config)
        self.normalize, self.feature_grad_mult = config.normalize, config.feature_grad_mult
        self.output_dim, self.local_dim = config.dim, config.conv_channels[-1]
        self.stride = self.feature_extractor.stride
        self.keep_hidden_states = self.keep_local = False
        if self.feature_grad_mult == 0:
            self.feature_extractor.requires_grad_(False)
        adapt(self, config.dim, config.lora, config.adapter)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames for so many samples; 0 for fewer than 400."""
        return self.feature_extractor.output_lengths(lengths)

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
        """Encodes.

        Args:
            x: `(B, S)` samples at 16 kHz in [-1, 1]; the padding may hold anything.
            lengths: `(B,)` samples.
            mask: `(B, T)` bool, True at frames that `masked_spec_embed` replaces, or None.
            channel_mask: `(B, D)` bool, True at channels that are 0 in all frames, or None.
            context: None; these blocks read no second sequence.
            context_lengths: None.

        Raises:
            ValueError: a context.
        """
        if context is not None:
            raise ValueError("the wav2vec2 encoder reads no context; use conformer or transformer")
        raw, packing = self.convolve(x, lengths)
        if packing.total == 0:  # every utterance is shorter than the window
            return self._nothing(raw, packing)
        projection = self.feature_projection
        local = projection.layer_norm(raw)
        x = projection.projection(local)
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # residuals stay fp32 under autocast
        x = hide(self.input_dropout(x, packing), packing, self.masked_spec_embed, mask, channel_mask)
        x, states = self.encoder(x, packing)
        hidden = [packing.unpack(state) for state in states] if self.keep_hidden_states else None
        kept = [packing.unpack(part) if self.keep_local else None for part in (local, raw)]
        return EncoderOutput(packing.unpack(x), packing.lengths, hidden, *kept)

    def convolve(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Packing]:
        """The convolutions' packed frames `(N, C)`, before any norm over channels, and their packing.

        Their gradient is scaled by `feature_grad_mult`; with 0 they have none.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.feature_grad_mult > 0):
            frames, packing = self.feature_extractor(normalise_waveform(x, lengths, self.normalize), lengths)
        return self._scaled(frames), packing

    def convolve_padded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The same of the whole batch, `(B, T, C)`, with the frames of its padding (samples of 0)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.feature_grad_mult > 0):
            x = normalise_waveform(x, lengths, self.normalize)
            return self._scaled(self.feature_extractor.padded(x, lengths))

    def _scaled(self, frames: Tensor) -> Tensor:
        if self.feature_grad_mult not in (0, 1) and frames.requires_grad:
            return _ScaledGradient.apply(frames, self.feature_grad_mult)
        return frames

    def _nothing(self, raw: Tensor, packing: Packing) -> EncoderOutput:
        nothing = raw.new_zeros(len(packing.sizes), 0, self.output_dim)
        hidden = [nothing] * (len(self.encoder.layers) + 1) if self.keep_hidden_states else None
        local = raw.new_zeros(len(packing.sizes), 0, self.local_dim) if self.keep_local else None
        return EncoderOutput(nothing, packing.lengths, hidden, local, local)


def _conformer_block(config: Config) -> ConformerBlock:
    shape = Shape(
        dim=config.dim,
        heads=config.heads,
        feed_forward=config.feed_forward,
        activation="silu",
        positions="rotary",
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        shared_dropout=False,
        norm_eps=config.norm_eps,
    )
    return ConformerBlock(shape, config.conformer_kernel, "layer")


def _transformer_block(config: Config) -> Wav2Vec2Block:
    shape = BlockShape(
        dim=config.dim,
        heads=config.heads,
        feed_forward=config.feed_forward,
        norm=config.norm,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        norm_eps=config.norm_eps,
    )
    block = Wav2Vec2Block(shape)
    for part in block.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
    return block


def build(config: Config, input_dim: int | None = None) -> nn.Module:
    """The encoder; samples have no dimension, so that `input_dim` is not used."""
    return Wav2Vec2Encoder(config)
