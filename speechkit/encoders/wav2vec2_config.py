"""The configuration of the wav2vec 2.0 encoder; sizes left out are those of its preset."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from speechkit.config import check_range
from speechkit.encoders.wav2vec2_presets import preset_values
from speechkit.layers.adapters import Bottleneck, Lora


@dataclass
class Config:
    """wav2vec 2.0, XLSR or HuBERT encoder of 16 kHz speech; a field left null takes its preset's value."""

    name: str = "wav2vec2"
    """The encoder's kind."""

    preset: Literal[
        "tiny",
        "base",
        "large_ls960",
        "large_lv60",
        "xlsr53",
        "hubert_base",
        "hubert_large",
        "hubert_xlarge",
        "conformer_tiny",
        "conformer_base",
        "conformer_xl",
    ] = "base"
    """Published size whose values fill the fields left null; `tiny` ones are ours, for CPUs."""

    dim: int | None = None
    """Model dimension D."""

    layers: int | None = None
    """Number of blocks of the context network."""

    heads: int | None = None
    """Attention heads, a divisor of `dim`."""

    feed_forward: int | None = None
    """Inner dimension of the feed-forward parts."""

    extractor: Literal["group", "layer"] | None = None
    """Norms of the convolutions: each channel over time after the first one, or all channels after each."""

    conv_channels: list[int] | None = None
    """Channels of each convolution of the feature encoder."""

    conv_kernels: list[int] | None = None
    """Width of each convolution, in frames of its input."""

    conv_strides: list[int] | None = None
    """Step of each convolution; their product, 320 samples, is the step between frames."""

    conv_bias: bool | None = None
    """Whether the convolutions have biases."""

    feature_norm: bool = True
    """Layer norm of the convolutions' channels before the projection; some HuBERT checkpoints have none."""

    norm: Literal["pre", "post"] | None = None
    """Normalise the input of each part of a block, or each sum."""

    normalize: Literal["none", "fairseq", "hf"] | None = None
    """Mean 0 and variance 1 for each waveform; the two kinds differ for quiet speech (1e-5 or 1e-7)."""

    pos_conv_kernel: int | None = None
    """Frames of the convolution that tells positions."""

    pos_conv_groups: int | None = None
    """Groups of that convolution, a divisor of `dim`."""

    pos_conv_norm: Literal["weight", "batch"] = "weight"
    """Its normalisation: of the weights, or of its input over the batch (some HuBERT checkpoints)."""

    blocks: Literal["transformer", "conformer"] | None = None
    """Kind of the blocks; Conformers take rotary positions instead of the positional convolution."""

    conformer_kernel: int | None = None
    """Frames of the depthwise convolution of Conformer blocks, odd."""

    dropout: float | None = None
    """Probability of dropping a value of the context network's input and of each part's output."""

    attention_dropout: float | None = None
    """Probability of dropping an attention weight."""

    activation_dropout: float | None = None
    """Probability of dropping a value inside the feed-forward parts."""

    input_dropout: float | None = None
    """Probability of dropping a value of the projected features, before masking."""

    layer_drop: float | None = None
    """Probability of leaving out a block in training."""

    feature_grad_mult: float | None = None
    """Factor of the gradient of the feature encoder; 0 freezes it."""

    pad_policy: Literal["masked", "hf"] = "masked"
    """Statistics of `extractor: group` over an utterance's own samples, or over padding too (published)."""

    pad_mask: Literal["conv", "legacy"] = "conv"
    """Frames of an utterance in a padded batch: those that it fills, or, as HuBERT's were counted, up to two
    more; `legacy` is for comparisons: the frames of an utterance then depend on the longest of its batch."""

    norm_eps: float = 1e-5
    """Added to the variance in layer norms."""

    checkpointing: bool = False
    """Recompute blocks and convolutions in the backward pass: less memory, a third more time."""

    lora: Lora | None = None
    """Low-rank changes of linear layers learn in the place of the weights; null for none."""

    adapter: Bottleneck | None = None
    """Bottlenecks in the blocks learn in the place of the weights; null for none."""

    def __post_init__(self) -> None:
        for name, value in preset_values(self.preset).items():
            if getattr(self, name) is None:
                setattr(self, name, copy.copy(value))
        for name in ("dim", "layers", "heads", "feed_forward", "pos_conv_kernel", "pos_conv_groups"):
            check_range(name, getattr(self, name), 1)
        check_range("conformer_kernel", self.conformer_kernel, 1)
        for name in ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layer_drop"):
            check_range(name, getattr(self, name), 0, 1, open_high=True)
        check_range("feature_grad_mult", self.feature_grad_mult, 0)
        check_range("norm_eps", self.norm_eps, 0, 1)
        self._check_shapes()

    def _check_shapes(self) -> None:
        for name in ("heads", "pos_conv_groups"):
            if self.dim % getattr(self, name):
                raise ValueError(f"dim={self.dim} must be divisible by {name}={getattr(self, name)}")
        stack = {name: getattr(self, name) for name in ("conv_channels", "conv_kernels", "conv_strides")}
        if len({len(values) for values in stack.values()}) > 1 or not self.conv_channels:
            raise ValueError(f"{', '.join(stack)} must hold one number for each convolution, not {stack}")
        if min(min(values) for values in stack.values()) < 1:
            raise ValueError(f"numbers of convolutions must be at least 1, not {stack}")
        if any(k < s for k, s in zip(self.conv_kernels, self.conv_strides)):
            raise ValueError(f"a convolution wider than its kernel would skip samples: {stack}")
        if self.blocks == "conformer" and self.conformer_kernel % 2 == 0:
            raise ValueError(f"conformer_kernel={self.conformer_kernel} must be odd")
        if self.blocks == "conformer" and self.dim // self.heads % 2:
            raise ValueError(f"conformer blocks need an even dim / heads, not {self.dim // self.heads}")
