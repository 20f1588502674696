"""Systems that are said in terms of others: one for each value of a word, or a variant of one above.

A system is a dataclass with `like`, `each`, `options` and `paper`, as `speechkit.systems.System` is.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from itertools import product
from typing import Any, TypeVar

from speechkit.errors import nearest

System = TypeVar("System")


def repeated(systems: dict[str, System]) -> dict[str, System]:
    """The same with a system for each combination of values in the place of those that have `each`.

    Raises:
        ValueError: two systems would have the same name.
    """
    done: dict[str, System] = {}
    for name, system in systems.items():
        for values in product(*system.each.values()):
            words = dict(zip(system.each, values))
            if (key := _say(name, words)) in done:
                raise ValueError(f"systems.{name}: there is a '{key}' already; say each {{word}} in the name")
            said = {spec.name: _say(getattr(system, spec.name), words) for spec in fields(system)}
            done[key] = replace(system, **{**said, "each": {}}) if words else system
    return done


def _say(value: Any, words: dict[str, str]) -> Any:
    """Texts, and those of lists, with values in the place of `{word}`; anything else as it is."""
    if isinstance(value, list):
        return [_say(item, words) for item in value]
    if isinstance(value, str):
        for word, said in words.items():
            value = value.replace(f"{{{word}}}", said)
    return value


def completed(systems: dict[str, System]) -> dict[str, System]:
    """The same with what variants have from the systems that they are like; ValueError if there are none."""
    done: dict[str, System] = {}
    for name, system in systems.items():
        if system.like is not None:
            if system.like not in done:
                hint = nearest(system.like, list(done))
                raise ValueError(f"systems.{name}.like: no system '{system.like}' above it{hint}")
            other = done[system.like]
            taken = {key: getattr(other, key) for key in _unsaid(system) if key != "paper"}
            options = [*other.options, *system.options]
            system = replace(system, **{**taken, "options": options, "like": None})
        done[name] = system
    return done


def _unsaid(system: System) -> list[str]:
    """Fields that have their default values."""
    defaults = {
        spec.name: spec.default_factory() if spec.default is MISSING else spec.default
        for spec in fields(system)
        if spec.default is not MISSING or spec.default_factory is not MISSING
    }
    return [name for name, default in defaults.items() if getattr(system, name) == default]
