"""Running a copy of a recipe over a corpus in miniature."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
MADE = ("data", "dump", "exp", "downloads", "quick", "RESULTS.md", "images", "__pycache__")


def copy(name: str, folder: Path) -> Path:
    """egs/<name> without what a user's own runs may have left there, below the folder."""
    shutil.copytree(ROOT / "egs" / name, folder / "egs" / name, ignore=shutil.ignore_patterns(*MADE))
    return folder / "egs" / name


def run(recipe: Path, *command: str | Path, timeout: float = 60) -> subprocess.CompletedProcess:
    """Runs a command in the recipe's folder, in this very environment."""
    environment = {**os.environ, "SPEECHKIT_VENV": "active", "SPEECHKIT_ROOT": str(ROOT)}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=recipe, env=environment, capture_output=True, text=True, timeout=timeout)


def stages(recipe: Path, *options: str | Path, timeout: float = 290) -> str:
    """`./run.sh --quick true` with these options; what it said, once it is certain that it succeeded."""
    done = run(recipe, "./run.sh", "--quick", "true", "--jobs", "1", *options, timeout=timeout)
    logs = "".join(path.read_text()[-1500:] for path in recipe.glob("quick/exp/*/seed*/**/*.log"))
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{logs[-6000:]}"
    return done.stderr


def program(path: Path) -> ModuleType:
    """A Python program of a recipe as a module: what it does costs no new process then."""
    name = f"{path.parents[2].name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # where it looks for others of the recipe
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def texts(table: Path) -> dict[str, str]:
    """The rows of a `text` file."""
    return dict(line.split(" ", 1) for line in table.read_text("utf-8").splitlines())
