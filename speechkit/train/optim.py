"""Optimisers and their parameter groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn

from speechkit.config import check_range
from speechkit.encoders.fine_tuning import depth
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
    layer_decay: float = 1.0
    """Lower rates nearer to the input of the encoder: block l of L (from 0) learns at layer_decay^(L - l)
    times the rate, what stands before the blocks at layer_decay^(L + 1), everything else at the rate."""

    def __post_init__(self) -> None:
        check_range("lr", self.lr, 0)
        check_range("clip", self.clip, 0)
        check_range("weight_decay", self.weight_decay, 0)
        check_range("eps", self.eps, 0)
        check_range("layer_decay", self.layer_decay, 1e-3, 1)
        if len(self.betas) != 2:
            raise ValueError(f"betas={self.betas} must be two numbers")
        for beta in self.betas:
            check_range("betas", beta, 0, 1, open_high=True)


def build(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of the parameters that require gradients now; others take no memory and never change.

    A parameter that is frozen later on is skipped while it has no gradient.

    Raises:
        InputError: a group's pattern matches none of them, there are none, or the model has no blocks
            whose rates could decay.
    """
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    used = set()
    scales = layer_scales(model, config.layer_decay)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = next((g for g in config.groups if fnmatchcase(name, g.pattern)), Group("*"))
        used.add(group.pattern)
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        key = (group.lr_scale * scales.get(name, 1.0), decay if parameter.ndim > 1 else 0.0)
        grouped.setdefault(key, []).append(parameter)
    if not grouped:
        raise InputError("no parameter of the model learns: all are frozen")
    for group in config.groups:
        if group.pattern not in used:
            raise InputError(f"optim.groups: no parameter is left for the pattern '{group.pattern}'")
    groups = [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in grouped.items()
    ]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.name]
    return kind(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, fused=True)


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Name of each encoder parameter -> the factor of its rate; see `Config.layer_decay`."""
    if decay == 1:
        return {}
    depths = {name: depth(model, name) for name, _ in model.named_parameters()}
    blocks = 1 + max((d for d in depths.values() if d is not None), default=-1)
    if not blocks:
        raise InputError("optim.layer_decay: the model has no encoder with blocks; leave it out")
    return {name: decay ** (blocks - d) for name, d in depths.items() if d is not None}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group, scaled by its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
