"""Dropout of packed frames."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from speechkit.layers.masks import Packing


def dropped_places(count: int, rate: float) -> Tensor:
    """Which of so many values are dropped, each with the given probability, from the global generator.

    Instead of a random number for every value, one for every *dropped* value is drawn: the distance to
    the next one, which is geometric and the next integer above `-E / log(1 - rate)` for an exponential E
    (Devroye, 1986, section X.2). At a rate of 0.1 this takes a sixteenth of the time of a Bernoulli mask.

    Returns:
        `(n,)` int64, increasing, on the CPU.
    """
    seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    generator = np.random.Generator(np.random.SFC64(seed))
    enough = int(count * rate + 6 * math.sqrt(count * rate * (1 - rate)) + 8)
    places, last = [], -1
    while last < count:
        gaps = generator.standard_exponential(enough, dtype=np.float32)
        gaps *= -1 / math.log1p(-rate)
        steps = gaps.astype(np.int64)
        steps += 1
        np.cumsum(steps, out=steps)
        steps += last
        places.append(steps)
        last = int(steps[-1])
    found = np.concatenate(places) if len(places) > 1 else places[0]
    return torch.from_numpy(found[: np.searchsorted(found, count)])


class _Dropout(torch.autograd.Function):
    """Scales, and writes zeros; what it keeps for the backward pass are the places of the zeros."""

    @staticmethod
    def forward(ctx, x: Tensor, rate: float, inplace: bool) -> Tensor:
        ctx.rate = rate
        places = dropped_places(x.numel(), rate)
        ctx.save_for_backward(places)
        if inplace:
            ctx.mark_dirty(x)
            return _drop_(x, places, rate)
        return _drop_(x.clone(memory_format=torch.contiguous_format), places, rate)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        copied = gradient.clone(memory_format=torch.contiguous_format)  # a residual sum shares it
        return _drop_(copied, *ctx.saved_tensors, ctx.rate), None, None


def _drop_(x: Tensor, places: Tensor, rate: float) -> Tensor:
    x.mul_(1 / (1 - rate)).view(-1).index_fill_(0, places, 0)
    return x


def dropout(x: Tensor, rate: float, inplace: bool = False) -> Tensor:
    """Sets values to 0 with the given probability and scales the others, from the global generator.

    On a CPU the random numbers are most of the cost of `torch.nn.functional.dropout`; see
    `dropped_places` for what is done here.

    Args:
        x: any shape, contiguous if `inplace`.
        rate: the probability.
        inplace: overwrite `x`, which nothing else may need.
    """
    if rate == 0:
        return x
    return nn.functional.dropout(x, rate, inplace=inplace) if x.is_cuda else _Dropout.apply(x, rate, inplace)


class FrameDropout(nn.Module):
    """Dropout of `(N, D)` packed frames (Srivastava et al., 2014).

    Args:
        rate: probability of dropping a value.
        shared: one mask for all frames of an utterance (Gal and Ghahramani, 2016): T times fewer
            random numbers, which are what dropout costs on a CPU.
        inplace: overwrite the input unless the mask is shared; for inputs that nothing else needs, such as
            what a linear layer has just made.
    """

    def __init__(self, rate: float, shared: bool = False, inplace: bool = False) -> None:
        super().__init__()
        self.rate, self.shared, self.inplace = rate, shared, inplace

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Returns `(N, D)`; the input itself in evaluation."""
        if not self.training or self.rate == 0:
            return x
        if not self.shared:
            return dropout(x, self.rate, self.inplace)
        keep = torch.full((len(packing.sizes), x.size(1)), 1 - self.rate, dtype=x.dtype, device=x.device)
        mask = torch.bernoulli(keep).div_(1 - self.rate)
        if packing.regular:
            return (x.unflatten(0, (len(mask), -1)) * mask[:, None]).flatten(0, 1)
        return x * mask.index_select(0, packing.utterance)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.rate}, shared={self.shared}"
