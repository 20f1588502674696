"""utils/new_recipe.py copies the template, and refuses what cannot be a recipe."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs/TEMPLATE/asr1"


def new_recipe(*arguments, egs):
    command = [sys.executable, ROOT / "utils/new_recipe.py", *arguments, "--egs", egs]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", ["asr1", "asr2"])
def test_copy(tmp_path, task):
    done = new_recipe("yoruba", task, egs=tmp_path)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "yoruba" / task
    expected = {"run.sh", "path.sh", "cmd.sh", "README.md", "local/data.py", "conf/train.yaml"}
    assert expected <= files(made) <= files(TEMPLATE)
    assert all(
        filecmp.cmp(made / name, TEMPLATE / name, shallow=False) for name in files(made) - {"README.md"}
    )
    assert (made / "README.md").read_text().startswith(f"# yoruba: {task}\n")
    assert os.access(made / "run.sh", os.X_OK)
    assert [path.name for path in tmp_path.iterdir()] == ["yoruba"]
    assert [path.name for path in (tmp_path / "yoruba").iterdir()] == [task]


def test_existing_recipe_is_kept(tmp_path):
    (tmp_path / "yoruba/asr1").mkdir(parents=True)
    (tmp_path / "yoruba/asr1/mine").touch()
    done = new_recipe("yoruba", "asr1", egs=tmp_path)
    assert done.returncode == 2 and "yoruba/asr1 exists already" in done.stderr
    assert files(tmp_path) == {"yoruba/asr1/mine"}


@pytest.mark.parametrize(
    "corpus, task, says",
    [
        ("../evil", "asr1", "corpus '../evil'"),
        ("a/b", "asr1", "corpus 'a/b'"),
        ("Big", "asr1", "corpus 'Big'"),
        ("TEMPLATE", "asr1", "corpus 'TEMPLATE'"),
        ("a b", "asr1", "corpus 'a b'"),
        ("", "asr1", "corpus ''"),
        (".", "asr1", "corpus '.'"),
        ("yoruba", "tts1", "task 'tts1': no template; there is asr1"),
        ("yoruba", "asr", "task 'asr'"),
        ("yoruba", "asr0", "task 'asr0'"),
        ("yoruba", "../asr1", "task '../asr1'"),
        ("yoruba", "", "task ''"),
    ],
)
def test_bad_names(tmp_path, corpus, task, says):
    done = new_recipe(corpus, task, egs=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_arguments(tmp_path):
    assert new_recipe("yoruba", egs=tmp_path).returncode == 2
