"""Normalisation of packed frames, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.layers.masks import Packing, zero_padding

NORMS = ("layer", "batch", "group")


def utterance_norm(x: Tensor, lengths: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 of each channel over the frames of each utterance, without parameters.

    Args:
        x: `(B, T, D)`; the padding may hold anything.
        lengths: `(B,)` frames.
        eps: added to the variance: a constant channel becomes 0.

    Returns:
        `(B, T, D)`, at least fp32, zeros at padding.
    """
    x = zero_padding(x.to(torch.promote_types(x.dtype, torch.float32)), lengths)
    counts = lengths.clamp(min=1)[:, None, None]
    centred = zero_padding(x - x.sum(1, keepdim=True) / counts, lengths)
    variance = centred.square().sum(1, keepdim=True) / counts
    return centred * torch.rsqrt(variance + eps)


class FrameNorm(nn.Module):
    """Layer, batch or group normalisation of `(N, D)` packed frames.

    `layer` looks at one frame; `batch` at all valid frames of the batch in training and at running
    statistics in evaluation; `group` at the valid frames of one utterance (Wu and He, 2018). Padding
    never takes part.

    Args:
        name: one of `NORMS`.
        dim: D.
        groups: for `group`, a divisor of D.
    """

    def __init__(self, name: str, dim: int, groups: int = 1) -> None:
        super().__init__()
        self.name = name
        self.norm = {
            "layer": lambda: nn.LayerNorm(dim),
            "batch": lambda: nn.BatchNorm1d(dim),
            "group": lambda: nn.GroupNorm(groups, dim),
        }[name]()

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Returns `(N, D)`."""
        if self.name == "group":
            return self._group(x, packing)
        if self.name == "batch" and self.training and len(x) < 2:
            return nn.functional.batch_norm(
                x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias
            )  # a single frame has no variance
        return self.norm(x)

    def _group(self, x: Tensor, packing: Packing) -> Tensor:
        groups, eps = self.norm.num_groups, self.norm.eps
        grouped = x.unflatten(1, (groups, -1))
        counts = (packing.lengths * grouped.size(2)).clamp(min=1)[:, None]

        def per_utterance(values: Tensor) -> Tensor:
            return (packing.unpack(values.sum(2)).sum(1) / counts).index_select(0, packing.utterance)

        centred = grouped - per_utterance(grouped)[..., None]
        variance = per_utterance(centred.square())[..., None]
        normal = centred * torch.rsqrt(variance + eps)
        return torch.addcmul(self.norm.bias, normal.flatten(1), self.norm.weight)
