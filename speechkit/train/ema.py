"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from speechkit.train.freeze import learning


class EMA:
    """A slow copy of the parameters that learn; frozen ones and buffers are the model's own.

    After update n (from 0) the copy moves by `1 - min(decay, (1 + n) / (10 + n))` towards the model, so
    that the first weights are forgotten soon.

    Args:
        model: its parameters that require gradients are followed in their order.
        decay: share of the copy that stays at each update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.parameters = learning(model)
        self.copy = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Moves the copy towards the model after update n."""
        stay = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(self.copy, [p.detach() for p in self.parameters], 1 - stay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The model holds the averaged weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, copy in zip(self.parameters, self.copy):
            held = parameter.detach().clone()
            parameter.copy_(copy)
            copy.copy_(held)

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state with averaged parameters."""
        with self.swapped():
            return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes the averaged parameters back from `state_dict`."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for parameter, copy in zip(self.parameters, self.copy):
            copy.copy_(state[names[id(parameter)]])
