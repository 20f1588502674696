"""Dropout of packed frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.layers.masks import Packing


class FrameDropout(nn.Module):
    """Dropout of `(N, D)` packed frames (Srivastava et al., 2014).

    Args:
        rate: probability of dropping a value.
        shared: one mask for all frames of an utterance (Gal and Ghahramani, 2016): T times fewer
            random numbers, which are what dropout costs on a CPU.
    """

    def __init__(self, rate: float, shared: bool = False) -> None:
        super().__init__()
        self.rate, self.shared = rate, shared

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Returns `(N, D)`; the input itself in evaluation."""
        if not self.training or self.rate == 0:
            return x
        if not self.shared:
            return nn.functional.dropout(x, self.rate)
        keep = torch.full((len(packing.sizes), x.size(1)), 1 - self.rate, dtype=x.dtype, device=x.device)
        mask = torch.bernoulli(keep).div_(1 - self.rate)
        if packing.regular:
            return (x.unflatten(0, (len(mask), -1)) * mask[:, None]).flatten(0, 1)
        return x * mask.index_select(0, packing.utterance)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.rate}, shared={self.shared}"
