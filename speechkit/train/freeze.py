"""Freezing by parameter pattern and update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from speechkit.config import check_range
from speechkit.errors import InputError


@dataclass
class Freeze:
    """Parameters that do not learn for a while."""

    pattern: str
    """Glob over parameter names, such as `encoder.*`."""
    until: int | None = None
    """The first update that trains them; None never does."""

    def __post_init__(self) -> None:
        if self.until is not None:
            check_range("until", self.until, 0)


class Freezing:
    """Switches parameters on and off by update.

    What the model itself has switched off (`requires_grad`) stays so, whatever the rules say. Once this is
    made and until it is called, exactly the parameters that learn at some time require gradients: these are
    what an optimiser, a gradient buffer and averaged weights are made for.

    Args:
        model: whose parameters are meant.
        rules: patterns and updates; a parameter waits for all rules that match it.

    Raises:
        InputError: a pattern matches no parameter, or nothing learns at the first update.
    """

    def __init__(self, model: nn.Module, rules: Sequence[Freeze]) -> None:
        named = dict(model.named_parameters())
        self.waiting: list[tuple[nn.Parameter, int]] = []
        for rule in rules:
            if not any(fnmatchcase(name, rule.pattern) for name in named):
                raise InputError(
                    f"freeze: no parameter matches '{rule.pattern}'; the first ones are {list(named)[:5]}"
                )
        for name, parameter in named.items():
            updates = [rule.until for rule in rules if fnmatchcase(name, rule.pattern)]
            if None in updates:
                parameter.requires_grad_(False)
            elif updates and parameter.requires_grad:
                self.waiting.append((parameter, max(updates)))
        waiting = {id(parameter) for parameter, until in self.waiting if until > 0}
        if not any(p.requires_grad and id(p) not in waiting for p in named.values()):
            raise InputError(
                f"freeze: nothing would learn in update 0 ({len(named)} parameters, all frozen); "
                "leave a part of the model out of the patterns"
            )

    def __call__(self, update: int) -> None:
        """Brings the waiting parameters to an update."""
        for parameter, until in self.waiting:
            parameter.requires_grad_(update >= until)


def learning(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
