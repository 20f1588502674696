"""The same code does not stand in two places (CONTRIBUTING, rule 1)."""

import ast
from collections import defaultdict

import pytest
from style.sources import ROOT, python_files, where

LONGEST = 12
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/*/run.sh"))


def code_lines(text):
    """(line number, code) of each line that says something: no docstring, import, comment, lone bracket."""
    silent = set()
    for node in ast.walk(ast.parse(text)):
        text_only = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text_only or isinstance(node, ast.Import | ast.ImportFrom):
            silent.update(range(node.lineno, node.end_lineno + 1))
    lines = ((number, line.partition("  # ")[0].strip()) for number, line in enumerate(text.split("\n"), 1))
    return [
        (number, line)
        for number, line in lines
        if number not in silent and not line.startswith("#") and any(map(str.isalnum, line))
    ]


def repeated(sources):
    """Runs of LONGEST or more equal lines, as (name:line, name:line); `sources` maps names to texts."""
    places = defaultdict(list)
    code = {name: code_lines(text) for name, text in sources.items()}
    for name, lines in code.items():
        for start in range(len(lines) - LONGEST + 1):
            places[tuple(line for _, line in lines[start : start + LONGEST])].append((name, start))
    pairs = {(first, other) for found in places.values() for first in found[:1] for other in found[1:]}
    # Of a longer run only its beginning is told.
    runs = [
        (first, other)
        for first, other in sorted(pairs)
        if ((first[0], first[1] - 1), (other[0], other[1] - 1)) not in pairs
    ]
    return [tuple(f"{name}:{code[name][start][0]}" for name, start in run) for run in runs]


def test_no_run_of_lines_stands_twice():
    paths = [*python_files("speechkit", "utils", "egs"), ROOT / "setup.py"]
    found = repeated({where(path): path.read_text(encoding="utf-8") for path in paths})
    assert not found, "\n".join(" = ".join(run) for run in found)


def test_a_copy_is_found_whatever_stands_between_its_lines():
    lines = [f"value_{n} = compute({n})" for n in range(LONGEST)]
    other = ["import os", *(f"    {line}  # note\n\n" for line in lines)]
    spread = "\n".join([other[0], "if True:", *other[1:]])
    assert repeated({"a": "\n".join(lines), "b": spread}) == [("a:1", "b:3")]
    assert repeated({"a": "\n".join(lines[1:]), "b": spread}) == []
    assert repeated({"a": "\n".join(lines + ["end = 1"] + lines)}) == [("a:1", f"a:{LONGEST + 2}")]


@pytest.mark.parametrize("name", ["path.sh", "cmd.sh"])
def test_recipes_share_these_files_to_the_byte(name):
    assert len(RECIPES) >= 3
    template = (ROOT / "egs/TEMPLATE/asr1" / name).read_bytes()
    assert [str(recipe) for recipe in RECIPES if (recipe / name).read_bytes() != template] == []
