"""What all recipes have in common: stages, options, shared files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/*/run.sh"))
NO_TEXT = ("codebook1", "avbert1")  # tasks that recognise nothing
# The same number means the same thing everywhere.
NAMES = {
    0: "download|synthesise",
    1: "data",
    2: "format",
    3: "token",
    4: "pre-train|convert",
    5: "train|fine-tune",
    6: "decode",
    7: "score",
    8: "report",
}


def run(recipe, *arguments):
    folder = Path(sys.executable).parent
    environment = {**os.environ, "SPEECHKIT_VENV": "active", "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["./run.sh", *arguments], cwd=recipe, env=environment, capture_output=True, text=True, timeout=60
    )


pytestmark = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "egs")))


def test_stages_keep_their_numbers(recipe):
    done = run(recipe, "--list-stages", "true")
    assert done.returncode == 0 and done.stderr == ""
    stages = [line.split(None, 1) for line in done.stdout.splitlines()]
    numbers = [int(number) for number, _ in stages]
    needed = {1, 2, 7, 8} if recipe.name in NO_TEXT else {1, 2, 3, 5, 6, 7, 8}
    assert numbers == sorted(set(numbers)) and needed <= set(numbers)
    for number, name in stages:
        assert re.search(NAMES[int(number)], name), f"stage {number} is called '{name}'"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stage", "x"),
        ("--stop-stage", "08"),
        ("--stage", "9"),
        ("--stage", "3", "--stop-stage", "2"),
        ("--no-such-option", "1"),
        ("--stage=1",),
        ("--force", "1"),
        ("stray",),
    ],
    ids=" ".join,
)
def test_what_is_not_understood_exits_2(recipe, arguments):
    done = run(recipe, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "error: " in done.stderr


def test_shared_files_are_the_templates(recipe):
    for name in ("path.sh", "cmd.sh"):
        assert (recipe / name).read_text() == (ROOT / "egs/TEMPLATE/asr1" / name).read_text()


def test_help_explains_every_option(recipe):
    done = run(recipe, "--help")
    assert done.returncode == 0
    for line in done.stdout.splitlines()[1:]:
        assert re.match(r"  --[a-z-]+ +\S.* \(default: .*\)$", line), line


def test_run_sh_stays_small_and_works_inside_stages(recipe):
    lines = (recipe / "run.sh").read_text().splitlines()
    assert len(lines) <= 120 and "set -euo pipefail" in lines and lines[-1] == "finish"
    first = next(number for number, line in enumerate(lines) if line.startswith("if stage "))
    inside = False
    for line in lines[first:-1]:
        if line.startswith("if stage "):
            inside = True
        elif line == "fi":
            inside = False
        else:
            stages = line.startswith(("#", "compare_systems "))  # a function that is made of stages
            assert inside or not line or stages, f"outside a stage: {line}"
    assert not re.search(r"\bawk\b|\beval\b", "\n".join(lines))


def test_data_py_is_short(recipe):
    program = recipe / "local/data.py"
    assert program.is_file() and len(program.read_text().splitlines()) <= 150
    assert not re.search(r"nn\.Module|import torch", program.read_text())
