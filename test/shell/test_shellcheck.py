"""Every shell script is free of shellcheck's findings, in strict mode where it is run, and executable."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def scripts():
    skipped = (".", "venv-", "build", "data", "dump", "exp", "downloads")
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if not name.startswith(skipped)]
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".sh"))


SCRIPTS = sorted(scripts()) + [ROOT / ".ci/run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script(script):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which("shellcheck", path=path)
    assert program, "tools/setup.sh dev installs it"
    done = subprocess.run([program, script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    first, *lines = script.read_text().splitlines()
    if first.startswith("#!"):
        assert first == "#!/usr/bin/env bash"
        # A script that only hands over to a program has nothing that could go on after a failure.
        assert "set -euo pipefail" in lines or all(line.startswith(("#", "exec ")) for line in lines)
        assert os.access(script, os.X_OK), f"chmod +x {script}"
    else:  # sourced
        assert first.startswith("# shellcheck shell=bash")


def test_the_scripts_are_found():
    names = {str(path.relative_to(ROOT)) for path in SCRIPTS}
    assert {"tools/setup.sh", "utils/recipe.sh", "egs/TEMPLATE/asr1/run.sh", "test/run.sh"} <= names
