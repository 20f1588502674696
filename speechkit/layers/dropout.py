"""Dropout of packed frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.layers.masks import Packing


def dropout(x: Tensor, rate: float) -> Tensor:
    """Sets values to 0 with the given probability and scales the others, from the global generator.

    On a CPU the random numbers are most of the cost of `torch.nn.functional.dropout`. Here one draw of
    64 bits decides four values (the rate is rounded to 1/65536), which takes less than half the time.
    """
    if x.is_cuda:
        return nn.functional.dropout(x, rate)
    dropped = round(rate * 65536)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32768
    return x * keep.to(x.dtype).mul_(65536 / (65536 - dropped))


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
            return dropout(x, self.rate)
        keep = torch.full((len(packing.sizes), x.size(1)), 1 - self.rate, dtype=x.dtype, device=x.device)
        mask = torch.bernoulli(keep).div_(1 - self.rate)
        if packing.regular:
            return (x.unflatten(0, (len(mask), -1)) * mask[:, None]).flatten(0, 1)
        return x * mask.index_select(0, packing.utterance)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.rate}, shared={self.shared}"
