"""Global mean and variance normalisation of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.errors import InputError

FLOOR = 1e-5
"""Smallest standard deviation divided by: a constant dimension stays finite."""


class GlobalCMVN(nn.Module):
    """`(x - mean) / std`, with statistics of the training set.

    Args:
        mean: F numbers.
        std: F numbers.

    Raises:
        InputError: the two differ in length, or hold something that is not a finite number.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        means, stds = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        if means.shape != stds.shape or means.dim() != 1:
            raise InputError(f"CMVN: {len(mean)} means and {len(std)} standard deviations; make them again")
        if not (means.isfinite().all() and stds.isfinite().all() and (stds >= 0).all()):
            raise InputError("CMVN: means and standard deviations must be finite, the latter not negative")
        self.register_buffer("mean", means.to(torch.get_default_dtype()))
        self.register_buffer("scale", (1 / stds.clamp(min=FLOOR)).to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `(..., F)`."""
        return (x - self.mean) * self.scale
