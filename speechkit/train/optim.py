"""Optimisers and their parameter groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn

from speechkit.config import check_range
from speechkit.errors import InputError


@dataclass
class Group:
    """Parameters that learn at their own rate."""

    pattern: str
    """Glob over parameter names, such as `encoder.*`; the first group that matches counts."""
    lr_scale: float = 1.0
    """Multiplies the learning rate."""
    weight_decay: float | None = None
    """Replaces the weight decay; None keeps it."""

    def __post_init__(self) -> None:
        check_range("lr_scale", self.lr_scale, 0)


@dataclass
class Config:
    """Optimiser."""

    name: Literal["adamw", "adam"] = "adamw"
    """adamw decays weights apart from the gradient (Loshchilov and Hutter 2019), adam through it."""
    lr: float = 1e-3
    """Learning rate; the schedule's factor multiplies it."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    """Decay of the first and second moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """On matrices and kernels; biases, gains and other vectors are not decayed."""
    clip: float = 5.0
    """Largest norm of the whole gradient; 0 for no clipping."""
    groups: list[Group] = field(default_factory=list)
    """Rates by parameter pattern."""

    def __post_init__(self) -> None:
        check_range("lr", self.lr, 0)
        check_range("clip", self.clip, 0)
        check_range("weight_decay", self.weight_decay, 0)
        check_range("eps", self.eps, 0)
        if len(self.betas) != 2:
            raise ValueError(f"betas={self.betas} must be two numbers")
        for beta in self.betas:
            check_range("betas", beta, 0, 1, open_high=True)


def build(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all parameters, frozen ones too: they are skipped while they have no gradient.

    Raises:
        InputError: a group's pattern matches no parameter.
    """
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    used = set()
    for name, parameter in model.named_parameters():
        group = next((g for g in config.groups if fnmatchcase(name, g.pattern)), Group("*"))
        used.add(group.pattern)
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        key = (group.lr_scale, decay if parameter.ndim > 1 else 0.0)
        grouped.setdefault(key, []).append(parameter)
    for group in config.groups:
        if group.pattern not in used:
            raise InputError(f"optim.groups: no parameter is left for the pattern '{group.pattern}'")
    groups = [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in grouped.items()
    ]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.name]
    return kind(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group, scaled by its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
