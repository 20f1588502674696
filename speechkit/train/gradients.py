"""All gradients in one buffer: summed over ranks at once, in a fixed order, and clipped at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.train.distributed import Ranks
from speechkit.train.freeze import learning


class FlatGradients:
    """One vector whose pieces are the parameters' `.grad`, followed by a few more numbers to sum.

    One all-reduce of one vector is reproducible for any number of ranks; per-bucket reductions that
    start while the backward pass runs are not.

    Args:
        model: its parameters that require gradients, in their order; the others get no buffer.
        extra: how many numbers ride along (the sums of the loss terms).
    """

    def __init__(self, model: nn.Module, extra: int) -> None:
        self.parameters = learning(model)
        first = self.parameters[0]
        size = sum(p.numel() for p in self.parameters)
        self.flat = torch.zeros(size + extra, dtype=torch.float32, device=first.device)
        self.gradient, self.extra = self.flat[:size], self.flat[size:]
        self.views, offset = [], 0
        for parameter in self.parameters:
            end = offset + parameter.numel()
            self.views.append(self.flat[offset:end].view_as(parameter))
            offset = end

    def reset(self) -> None:
        """Zeroes everything; frozen parameters lose their gradient, so that optimisers skip them."""
        self.flat.zero_()
        for parameter, view in zip(self.parameters, self.views):
            wanted = view if parameter.requires_grad else None
            if parameter.grad is not wanted:
                parameter.grad = wanted

    def reduce(self, ranks: Ranks) -> None:
        """Sums the buffer over all ranks."""
        ranks.sum_(self.flat)

    def norm(self) -> Tensor:
        """Euclidean norm of the whole gradient."""
        return torch.linalg.vector_norm(self.gradient)

    def clip(self, norm: float, limit: float) -> None:
        """Scales the gradient of that norm down to the limit."""
        if limit and norm > limit:
            self.gradient.mul_(limit / norm)
