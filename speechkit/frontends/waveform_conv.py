"""The convolutional feature encoder of wav2vec 2.0 (Baevski et al., 2020): samples to frames.

Seven convolutions without padding, 320 samples between frames, 400 under each. Frames are stored time
by channel, so that a convolution is a matrix product and a layer norm needs no transposition.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechkit.layers.frame_convolution import frame_convolution
from speechkit.layers.masks import Packing, padding_mask, zero_padding

EPSILON = {"fairseq": 1e-5, "hf": 1e-7}
"""What the two public toolkits add to the variance of a waveform."""


def normalise_waveform(x: Tensor, lengths: Tensor, kind: str) -> Tensor:
    """Mean 0 and variance 1 over the samples of each utterance.

    Args:
        x: `(B, S)` samples; the padding may hold anything.
        lengths: `(B,)` samples.
        kind: "fairseq" or "hf", see `EPSILON`, or "none", which only clears the padding.

    Returns:
        `(B, S)` with zeros at padding, fp32 at least.
    """
    x = zero_padding(x.to(torch.promote_types(x.dtype, torch.float32)), lengths)
    if kind == "none":
        return x
    counts = lengths.clamp(min=1)[:, None]
    x = zero_padding(x - x.sum(1, keepdim=True) / counts, lengths)
    variance = x.square().sum(1, keepdim=True) / counts
    return x * torch.rsqrt(variance + EPSILON[kind])


class ConvLayer(nn.Module):
    """A convolution, a norm, and GELU.

    Args:
        inputs: C.
        outputs: C'.
        kernel: width in frames of the input.
        stride: step in frames of the input.
        bias: whether the convolution has one.
        norm: "group" (each channel over time), "layer" (channels of a frame) or None.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool, norm: str | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight)
        if norm is not None:
            self.layer_norm = nn.GroupNorm(outputs, outputs) if norm == "group" else nn.LayerNorm(outputs)
        self.norm = norm

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` frames for inputs of so many."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        return (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolves.

        Args:
            x: `(B, T, C)`.
            lengths: `(B,)` valid frames of the *result*, over which "group" takes its statistics;
                None when all of them are.

        Returns:
            `(B, T', C')`.
        """
        if self.norm == "group":
            x = normalised_convolution(x, self.conv, self.layer_norm, lengths)
        else:
            x = frame_convolution(x, self.conv.weight, self.conv.bias, self.conv.stride[0])
        if self.norm == "layer":
            x = self.layer_norm(x)
        return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def normalised_convolution(x: Tensor, conv: nn.Conv1d, norm: nn.GroupNorm, lengths: Tensor | None) -> Tensor:
    """A convolution, then each channel with mean 0 and variance 1 over the valid frames of each utterance.

    The mean and variance of an output `w s + b` over windows s are `w m + b` and `w C w` for the mean m and
    the covariance C of the windows: of a few samples instead of hundreds of channels, so that C is found
    in fp64 for next to nothing, and the norm becomes a factor of the weights.

    Args:
        x: `(B, T, C)` with few channels.
        conv: C to C' channels.
        norm: C' groups of one channel.
        lengths: `(B,)` valid frames of the result, or None when all are.

    Returns:
        `(B, T', C')`.
    """
    width, stride = conv.kernel_size[0] * x.size(2), conv.stride[0] * x.size(2)
    windows = x.flatten(1).unfold(1, width, stride).double()
    valid = None if lengths is None else ~padding_mask(lengths, windows.size(1))[..., None]
    counts = windows.size(1) if lengths is None else lengths.clamp(min=1).view(-1, 1, 1)
    mean = (windows if valid is None else windows * valid).sum(1, keepdim=True) / counts
    windows = windows - mean
    known = windows if valid is None else windows * valid
    covariance = known.transpose(1, 2) @ known / counts
    with torch.autocast(x.device.type, enabled=False):
        kernels = conv.weight.transpose(1, 2).flatten(1)  # (C', k C), in the order of a window
        variance = ((kernels.double() @ covariance) * kernels).sum(2)
        scale = norm.weight * torch.rsqrt(variance + norm.eps).to(norm.weight.dtype)
        weight = (kernels * scale[..., None]).transpose(1, 2)
    dtype = torch.promote_types(x.dtype, norm.weight.dtype)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    return torch.baddbmm(norm.bias.to(dtype), windows.to(dtype), weight.to(dtype))


class WaveformConv(nn.Module):
    """The stack of convolutions.

    Args:
        channels: of each convolution.
        kernels: width of each, in frames of its input.
        strides: step of each.
        bias: whether the convolutions have biases.
        norm: "group" (after the first one only) or "layer" (after each).
        pad_policy: "masked" takes the statistics of "group" over each utterance's own samples, "hf" over
            the whole padded row, as the public toolkits do.
        checkpointing: recompute the convolutions in the backward pass instead of storing their results.
        pad_mask: "conv" counts the frames whose whole window an utterance fills; "legacy" those that share a
            sample with it when the batch is divided into as many equal parts as it has frames, at most two
            more (fairseq, models/hubert/hubert.py, forward_padding_mask).
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        bias: bool,
        norm: str,
        pad_policy: str = "masked",
        checkpointing: bool = False,
        pad_mask: str = "conv",
    ) -> None:
        super().__init__()
        norms = [norm] * len(channels) if norm == "layer" else ["group"] + [None] * (len(channels) - 1)
        shapes = zip([1, *channels], channels, kernels, strides, norms)
        self.conv_layers = nn.ModuleList(ConvLayer(a, b, k, s, bias, n) for a, b, k, s, n in shapes)
        self.pad_policy, self.pad_mask, self.checkpointing = pad_policy, pad_mask, checkpointing
        self.output_dim = channels[-1]
        self.window, self.stride = 1, 1
        for kernel, step in zip(kernels, strides):
            self.window, self.stride = self.window + (kernel - 1) * self.stride, self.stride * step

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` frames for so many samples; 0 for fewer than the window (400 samples).

        With `pad_mask: legacy` that depends on the longest of them.
        """
        frames = lengths
        for layer in self.conv_layers:
            frames = layer.output_lengths(frames)
        if self.pad_mask == "conv" or not frames.numel() or not frames.max():
            return frames
        part = torch.div(lengths.max(), frames.max(), rounding_mode="floor")
        return torch.div(lengths + part - 1, part, rounding_mode="floor").clamp(max=frames.max())

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Packing]:
        """Frames of every utterance.

        Args:
            x: `(B, S)` samples with zeros at padding.
            lengths: `(B,)` samples.

        Returns:
            Packed frames `(N, C)` and where the utterances lie.
        """
        packing = Packing(self.output_lengths(lengths))
        if packing.total == 0:
            return x.new_zeros(0, self.output_dim), packing
        if x.is_cuda or self.pad_policy == "hf" or self.pad_mask == "legacy":
            return packing.pack(self.padded(x, lengths)), packing
        rows = [row[None, :size, None] for row, size in zip(x, lengths.tolist()) if size >= self.window]
        return torch.cat([self._convolve(row)[0] for row in rows]), packing

    def padded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The frames `(B, T, C)` of a padded batch, those of its padding too; arguments as of `forward`."""
        return self._convolve(x[..., None], None if self.pad_policy == "hf" else lengths)

    def _convolve(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`(B, S, 1)` to `(B, T, C)`; `lengths` only where there is padding."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._layers, x, lengths, use_reentrant=False)
        return self._layers(x, lengths)

    def _layers(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        for layer in self.conv_layers:
            lengths = None if lengths is None else layer.output_lengths(lengths)
            x = layer(x, lengths)
        return x
