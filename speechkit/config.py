"""Configuration: dataclasses are the schema, YAML files and `key=value` overrides hold differences.

A kind (an encoder, a model, a schedule) is chosen by its `name`: a field declared with `kind(TABLE)`
looks the name up in a plain dict `name -> "package.module"`, and that module's `Config` dataclass
is the schema of the section. Scalars are strict: `no` is a word and not false, 5e-4 is a number,
a number is not a string. Neither this file nor what it imports loads torch.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import types
import typing
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from speechkit.errors import InputError, Problem, ProblemsError, nearest

T = TypeVar("T")
Path_ = tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of YAML 1.2: only true/false are booleans, 5e-4 is a float."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.inf$",
        "-+.0123456789",
    ),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def kind(table: dict[str, str], default: str) -> Any:
    """A dataclass field whose schema depends on its `name` key.

    Args:
        table: kind name -> module path; the module holds a dataclass called `Config`.
        default: the name when none is given.
    """
    return field(
        default_factory=lambda: load_kind(table, default).Config(),
        metadata={"kinds": table, "default": default},
    )


def optional_kind(table: dict[str, str]) -> Any:
    """Like `kind`, but absent (None) unless a name is given."""
    return field(default=None, metadata={"kinds": table, "default": None})


def load_kind(table: dict[str, str], name: str) -> types.ModuleType:
    """The module behind a kind's name; raises InputError that names the known ones."""
    if name not in table:
        raise InputError(f"no kind '{name}'{nearest(str(name), list(table))}")
    return importlib.import_module(table[name])


@dataclass
class _Tree:
    """Plain nested values with the place each key came from."""

    values: dict[str, Any]
    origins: dict[Path_, str]


def _from_node(node: yaml.Node, loader: _Loader, file: str, path: Path_, origins: dict[Path_, str]) -> Any:
    origins[path] = f"{file}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            where = f"{file}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{where}: a key must be a plain word")
            if key in values:
                raise InputError(f"{where}: duplicate key '{'.'.join((*path, key))}'")
            values[key] = _from_node(value_node, loader, file, (*path, key), origins)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_from_node(item, loader, file, (*path, str(i)), origins) for i, item in enumerate(node.value)]
    if "${" in node.value:
        raise InputError(f"{origins[path]}: interpolation is not supported ({node.value})")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise InputError(f"{origins[path]}: YAML tags are not supported ({node.tag})")
    return loader.construct_object(node)


def _parse(text: str, file: str, path: Path_ = ()) -> tuple[Any, dict[Path_, str]]:
    origins: dict[Path_, str] = {}
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, origins
        if "&" in text or "*" in text:
            for event in yaml.parse(text, Loader=_Loader):
                if isinstance(event, yaml.AliasEvent):
                    raise InputError(f"{file}:{event.start_mark.line + 1}: YAML aliases are not supported")
        return _from_node(node, loader, file, path, origins), origins
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(
            f"{file}:{mark.line + 1 if mark else 1}: not YAML: {getattr(error, 'problem', error)}"
        ) from None
    finally:
        loader.dispose()


def read_yaml(path: str | Path) -> tuple[dict[str, Any], dict[Path_, str]]:
    """Reads a YAML mapping; its optional `base: other.yaml` key (relative, one level) is merged below it.

    A section of the base without a `name` is for any kind that this file names.

    Returns:
        The values, and the place of every key as `file:line`.

    Raises:
        InputError: missing file, not UTF-8, not YAML, duplicate key, alias, tag, or interpolation.
    """
    tree = _read_file(Path(path))
    base = tree.values.pop("base", None)
    if base is None:
        return tree.values, tree.origins
    below = _read_file(Path(path).parent / base)
    if "base" in below.values:
        raise InputError(f"{below.origins[('base',)]}: a base file cannot have a base of its own")
    return merge(below.values, tree.values, open_kinds=True), {**below.origins, **tree.origins}


def _read_file(path: Path) -> _Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from None
    values, origins = _parse(text, str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path}:1: expected keys and values")
    return _Tree(values, origins)


def merge(below: dict[str, Any], above: dict[str, Any], open_kinds: bool = False) -> dict[str, Any]:
    """Sections are merged key by key, anything else is replaced; another `name` replaces the section.

    Args:
        below: values.
        above: values that win over them.
        open_kinds: a section without a name is of any kind, and is kept when it gets one.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        sections = isinstance(old, dict) and isinstance(value, dict)
        kept = sections and (
            value.get("name") in (None, old.get("name")) or (open_kinds and "name" not in old)
        )
        merged[key] = merge(old, value, open_kinds) if kept else value
    return merged


def parse_override(text: str) -> tuple[dict[str, Any], dict[Path_, str]]:
    """Parses one `a.b.c=value` from the command line, the value as in YAML."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"override '{text}': expected key=value")
    if not value.strip():
        raise InputError(f"override '{text}': no value; write {name}=null for none")
    path = tuple(name.strip().split("."))
    parsed, origins = _parse(value, f"override {text}", path)
    origins = {where: f"override '{text}'" for where in origins}
    for key in reversed(path):
        parsed = {key: parsed}
    return parsed, origins


def _kinds_first(override: str) -> tuple[bool, int]:
    """Another `name` replaces a section: what overrides set in it must come after, however they stand."""
    path = override.partition("=")[0].strip().split(".")
    chooses = path[-1] == "name"
    return not chooses, len(path) if chooses else 0


def load_config(
    schema: type[T], file: str | Path | None = None, overrides: typing.Sequence[str] = (), **changes: Any
) -> T:
    """Reads, merges and checks a configuration.

    Args:
        schema: the root dataclass.
        file: YAML of differences from the defaults, or None.
        overrides: `a.b=value` strings, each winning over what stands before it; kinds (`a.name=`) are
            chosen first.
        changes: plain nested values merged last, for calls from Python.

    Returns:
        An instance of `schema`.

    Raises:
        ProblemsError: every unknown key, wrong type, missing or out-of-range value, with its place.
    """
    values, origins = read_values(file, overrides)
    return from_dict(schema, merge(values, changes), origins)


def read_values(
    file: str | Path | None = None, overrides: typing.Sequence[str] = ()
) -> tuple[dict[str, Any], dict[Path_, str]]:
    """The unchecked values of a file with overrides, and where they came from; `from_dict` checks them.

    Raises:
        InputError: as `read_yaml`, or an override that is none.
    """
    values, origins = read_yaml(file) if file is not None else ({}, {})
    for override in sorted(overrides, key=_kinds_first):
        above, places = parse_override(override)
        values, origins = merge(values, above), {**origins, **places}
    return values, origins


def from_dict(schema: type[T], values: dict[str, Any], origins: dict[Path_, str] | None = None) -> T:
    """Checks plain nested values against a dataclass and builds it; see `load_config`."""
    problems: list[Problem] = []
    built = _build(schema, values, (), origins or {}, problems)
    if problems:
        raise ProblemsError(problems)
    return built


def _problem(message: str, path: Path_, origins: dict[Path_, str], problems: list[Problem]) -> None:
    place = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), "configuration")
    problems.append(Problem(place, 0, f"{'.'.join(path)}: {message}" if path else message))


def _build(schema: type, values: Any, path: Path_, origins: dict[Path_, str], problems: list[Problem]) -> Any:
    if not isinstance(values, dict):
        return _problem(f"expected a section with keys, got {values!r}", path, origins, problems)
    fields = {f.name: f for f in dataclasses.fields(schema) if f.init}
    hints = typing.get_type_hints(schema)
    before = len(problems)
    for key in values.keys() - fields.keys():
        _problem(f"unknown key{nearest(key, list(fields))}", (*path, key), origins, problems)
    arguments = {}
    for name, spec in fields.items():
        here = (*path, name)
        if name in values:
            arguments[name] = _field(spec, hints[name], values[name], here, origins, problems)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            _problem("required, and not given", here, origins, problems)
    if len(problems) > before:
        return None
    try:
        return schema(**arguments)
    except InputError as error:
        _problem(str(error), path, origins, problems)
    except ValueError as error:
        _problem(str(error), path, origins, problems)
    return None


def _field(spec: dataclasses.Field, hint: Any, value: Any, path: Path_, origins: dict, problems: list) -> Any:
    table = spec.metadata.get("kinds")
    if table is None:
        return _typed(hint, value, path, origins, problems)
    if value is None and spec.metadata["default"] is None:
        return None
    if not isinstance(value, dict):
        return _problem(f"expected a section with a name, got {value!r}", path, origins, problems)
    name = value.get("name", spec.metadata["default"])
    if name not in table:
        return _problem(
            f"no kind '{name}'{nearest(str(name), list(table))}", (*path, "name"), origins, problems
        )
    return _build(load_kind(table, name).Config, value, path, origins, problems)


def _typed(hint: Any, value: Any, path: Path_, origins: dict[Path_, str], problems: list[Problem]) -> Any:
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path, origins, problems)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, path, origins, problems)
    if origin is typing.Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        choices = ", ".join(map(str, arguments))
        return _problem(f"{value!r} is not one of {choices}", path, origins, problems)
    if origin is list and isinstance(value, list):
        return [_typed(arguments[0], v, (*path, str(i)), origins, problems) for i, v in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {k: _typed(arguments[1], v, (*path, k), origins, problems) for k, v in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    return _problem(f"expected {_type_name(hint)}, got {value!r}", path, origins, problems)


def _union(
    choices: tuple, value: Any, path: Path_, origins: dict[Path_, str], problems: list[Problem]
) -> Any:
    if value is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    for choice in rest[:-1]:
        attempt: list[Problem] = []
        result = _typed(choice, value, path, origins, attempt)
        if not attempt:
            return result
    return _typed(rest[-1], value, path, origins, problems)


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if hint in names:
        return names[hint]
    return {list: "a list", dict: "a section"}.get(
        typing.get_origin(hint), getattr(hint, "__name__", str(hint))
    )


def to_dict(config: Any) -> dict[str, Any]:
    """The complete values of a configuration; `from_dict` builds it again."""
    return dataclasses.asdict(config)


def dump(config: Any) -> str:
    """A configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, default_flow_style=None)


def differences(old: dict, new: dict, path: Path_ = ()) -> list[str]:
    """Lines `a.b: old -> new` for every value that differs between two nested dicts."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        here, a, b = (*path, str(key)), old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, here)
        elif a != b:
            lines.append(f"{'.'.join(here)}: {a!r} -> {b!r}")
    return lines


def check_range(
    name: str, value: float, low: float, high: float = float("inf"), *, open_high: bool = False
) -> None:
    """Raises ValueError unless low <= value <= high (or < high); for use in `__post_init__`."""
    if not (low <= value < high if open_high else low <= value <= high):
        raise ValueError(f"{name}={value} must be in [{low}, {high}{')' if open_high else ']'}")
