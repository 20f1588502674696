"""Freezing by parameter pattern and update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from speechkit.errors import InputError


@dataclass
class Freeze:
    """Parameters that do not learn for a while."""

    pattern: str
    """Glob over parameter names, such as `encoder.*`."""
    until: int | None = None
    """The first update that trains them; None never does."""


def check_freezing(model: nn.Module, rules: Sequence[Freeze]) -> None:
    """Raises InputError when a pattern matches no parameter."""
    names = [name for name, _ in model.named_parameters()]
    for rule in rules:
        if not any(fnmatchcase(name, rule.pattern) for name in names):
            raise InputError(f"freeze: no parameter matches '{rule.pattern}'; the first ones are {names[:5]}")


def apply_freezing(model: nn.Module, rules: Sequence[Freeze], update: int) -> None:
    """Sets `requires_grad` of the parameters under a rule; the others are left to the model."""
    for name, parameter in model.named_parameters() if rules else ():
        matching = [rule for rule in rules if fnmatchcase(name, rule.pattern)]
        if matching:
            parameter.requires_grad_(all(r.until is not None and update >= r.until for r in matching))
