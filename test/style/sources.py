"""The files that the tests of style look at: the checkout without what running and setting up leave."""

import ast
import functools
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(path.parent.name for path in ROOT.glob("speechkit/*/__init__.py"))

_MADE = {"__pycache__", "build", "dist", "venv"}
_MADE_BY_RECIPES = {"data", "dump", "exp", "downloads", "images"}


def files(*folders: str) -> list[Path]:
    """The files below these folders of the checkout (all of it when none is named), sorted."""
    return sorted(path for folder in folders or (".",) for path in _walk(ROOT / folder))


def _walk(top: Path) -> Iterator[Path]:
    for here, names, found in os.walk(top):
        recipe = (Path(here) / "run.sh").exists()
        names[:] = [name for name in names if name == ".ci" or not _made(name, recipe)]
        yield from (Path(here, name) for name in found if not name.startswith(".git"))


def _made(name: str, recipe: bool) -> bool:
    made = name.startswith((".", "venv-")) or name.endswith(".egg-info") or name in _MADE
    return made or (recipe and name in _MADE_BY_RECIPES)


def python_files(*folders: str) -> list[Path]:
    """The Python files below these folders."""
    return [path for path in files(*folders) if path.suffix == ".py"]


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def where(path: Path, node: ast.AST | None = None) -> str:
    """`file:line` as messages name it."""
    place = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    return f"{place}:{node.lineno}" if node is not None else place
