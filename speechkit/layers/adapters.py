"""Small parts that learn in a frozen network: LoRA (Hu et al., 2021), bottlenecks (Houlsby et al., 2019).

Both leave the names of the weights they adapt as they were, so a pre-trained state dict loads by name before
or after, and both begin as the unchanged network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.layers.dropout import dropout

ADAPTER_NAMES = ("*.lora_a", "*.lora_b", "*.adapter.*")
"""Globs of the parameters made here."""


@dataclass
class Lora:
    """Low-rank changes of linear layers: `W + alpha / rank * B A` (Hu et al., 2021, section 4.1)."""

    rank: int = 8
    """Rank r of the change."""

    alpha: float = 16.0
    """The change is scaled by alpha / rank."""

    dropout: float = 0.0
    """Probability of dropping a value of the input of A."""

    targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])
    """Last names of the linear layers that are adapted; globs."""

    train_base: bool = False
    """Let the other weights learn too; false freezes them."""

    def __post_init__(self) -> None:
        check_range("rank", self.rank, 1)
        check_range("alpha", self.alpha, 0)
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        _check_targets(self.targets)


@dataclass
class Bottleneck:
    """Residual bottlenecks after parts of every block (Houlsby et al., 2019, section 2.1)."""

    dim: int = 64
    """Inner dimension."""

    targets: list[str] = field(default_factory=lambda: ["attention", "feed_forward"])
    """Last names of the modules whose output goes through a bottleneck, before the residual sum; globs."""

    train_base: bool = False
    """Let the other weights learn too; false freezes them."""

    train_norms: bool = True
    """Let the layer norms of these blocks learn with the bottlenecks, as published."""

    def __post_init__(self) -> None:
        check_range("dim", self.dim, 1)
        _check_targets(self.targets)


def _check_targets(targets: list[str]) -> None:
    if not targets:
        raise ValueError("targets=[] adapts nothing; name some, or leave the section out")


class LoraLinear(nn.Linear):
    """A linear layer with a low-rank change; `weight` and `bias` are those of the layer it replaces.

    Args:
        linear: what is adapted; its parameters are shared, not copied.
        config: see `Lora`.
    """

    def __init__(self, linear: nn.Linear, config: Lora) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.rate = config.alpha / config.rank, config.dropout
        self.lora_a = nn.Parameter(linear.weight.new_empty(config.rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, config.rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., in)` to `(..., out)`: `x W^T + b + alpha / rank * x A^T B^T`."""
        y = F.linear(x, self.weight, self.bias)
        x = dropout(x, self.rate) if self.training and self.rate else x
        return y + F.linear(F.linear(x, self.lora_a), self.lora_b * self.scale)

    def merged_weight(self) -> Tensor:
        """`W + alpha / rank * B A`, `(out, in)`: one product for callers that join several layers.

        It equals `forward` where no value of the input of A is dropped.
        """
        return torch.addmm(self.weight, self.lora_b, self.lora_a, alpha=self.scale)


class BottleneckAdapter(nn.Module):
    """`x + U gelu(D x)`; U is zero at the start.

    Args:
        width: of x.
        dim: of what is between.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shape given, `(..., width)`."""
        return x + self.up(F.gelu(self.down(x)))


def _matching(what: str, module: nn.Module, targets: list[str], kind: type) -> dict[str, nn.Module]:
    """Name -> part, of those whose last name is among the targets; every target must find one."""
    parts = {name: part for name, part in module.named_modules() if name and isinstance(part, kind)}
    last = {name: name.rpartition(".")[2] for name in parts}
    for target in targets:
        if not any(fnmatchcase(name, target) for name in last.values()):
            there = sorted({name for name in last.values() if not name.isdigit()})
            raise InputError(
                f"{what}.targets: nothing to adapt is named '{target}'; there are {', '.join(there)}"
            )
    return {name: part for name, part in parts.items() if any(fnmatchcase(last[name], t) for t in targets)}


def apply_lora(module: nn.Module, config: Lora) -> list[str]:
    """Replaces the named linear layers by adapted ones, in place; see `freeze_base` for what learns then.

    Returns:
        Names of the layers.

    Raises:
        InputError: a target is the name of no linear layer.
    """
    found = _matching("lora", module, config.targets, nn.Linear)
    for name, linear in found.items():
        path, _, last = name.rpartition(".")
        setattr(module.get_submodule(path), last, LoraLinear(linear, config).train(linear.training))
    return list(found)


@torch.no_grad()
def merge_lora(module: nn.Module) -> list[str]:
    """Adds the low-rank changes to the weights, in place, and leaves plain linear layers.

    Returns:
        Names of the layers; none for a module without LoRA.
    """
    names = []
    for name, part in list(module.named_modules()):
        if isinstance(part, LoraLinear):
            plain = nn.Linear(part.in_features, part.out_features, bias=False, device="meta")
            part.weight.copy_(part.merged_weight())
            plain.weight, plain.bias = part.weight, part.bias
            path, _, last = name.rpartition(".")
            setattr(module.get_submodule(path), last, plain.train(part.training))
            names.append(name)
    return names


def apply_bottlenecks(module: nn.Module, config: Bottleneck, width: int) -> list[str]:
    """Sends the output of the named modules through bottlenecks, kept inside them as `adapter`, in place.

    Args:
        module: holds the modules; each must return one tensor.
        config: see `Bottleneck`.
        width: last dimension of their outputs.

    Returns:
        Names of the modules.

    Raises:
        InputError: a target is the name of no module.
    """
    found = _matching("adapter", module, config.targets, nn.Module)
    for part in found.values():
        like = next(part.parameters())
        part.adapter = BottleneckAdapter(width, config.dim).to(like).train(part.training)
        part.register_forward_hook(_through_adapter)
    return list(found)


def _through_adapter(part: nn.Module, _: object, output: Tensor) -> Tensor:
    return part.adapter(output)


def freeze_base(module: nn.Module, norms_of: Iterable[str] = ()) -> None:
    """Stops everything but the adapters from learning.

    Args:
        module: what was adapted.
        norms_of: names of parts whose layer norms may learn too.
    """
    parts = [module.get_submodule(name) for name in norms_of]
    norms = {part for inside in parts for part in inside.modules() if isinstance(part, nn.LayerNorm)}
    gains = {id(parameter) for norm in norms for parameter in norm.parameters()}
    for name, parameter in module.named_parameters():
        own = any(fnmatchcase(f".{name}", pattern) for pattern in ADAPTER_NAMES)
        if not own and id(parameter) not in gains:
            parameter.requires_grad_(False)


def adapt(module: nn.Module, width: int, lora: Lora | None, bottleneck: Bottleneck | None) -> None:
    """What an encoder calls at the end of its construction: puts adapters in and freezes the rest.

    Args:
        module: the encoder, or the part of it that may be adapted.
        width: D of its blocks.
        lora: low-rank changes, or None.
        bottleneck: bottlenecks, or None.

    Raises:
        InputError: a target is the name of nothing in it.
    """
    if lora is not None:
        apply_lora(module, lora)
    blocks = set()
    if bottleneck is not None:
        names = apply_bottlenecks(module, bottleneck, width)
        blocks = {name.rpartition(".")[0] for name in names if bottleneck.train_norms}
    chosen = [config for config in (lora, bottleneck) if config is not None]
    if chosen and not any(config.train_base for config in chosen):
        freeze_base(module, blocks)
