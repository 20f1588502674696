"""What a result was made with: versions, processor, git revision. Loads nothing heavy."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from speechkit import __version__


def environment() -> dict[str, str]:
    """Versions of python, torch and speechkit, the processor's name and the git revision."""
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "speechkit": __version__,
        "cpu": processor(),
        "git": git_revision(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_revision(folder: Path | None = None) -> str:
    """Short hash of the checkout that holds the package, with `+dirty` when files differ; "" outside git."""
    folder = folder or Path(__file__).parent
    try:
        short = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return short + ("+dirty" if changed else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
