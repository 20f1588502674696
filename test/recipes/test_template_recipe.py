"""The template, and the tutorial in egs/README.md that starts from it, followed to the letter."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_wave

ROOT = Path(__file__).resolve().parents[2]
EGS = ROOT / "egs"
TUTORIAL = (EGS / "README.md").read_text()
SPEAKERS = ("anna", "ben", "cleo", "dora")
SENTENCES = ("we see the sea", "two weeks at sea", "the week is weak", "see you too")


@pytest.fixture
def shell(tmp_path):
    """Runs a line of bash in a copy of egs/TEMPLATE's surroundings, in this very environment.

    The copy stands for the checkout: `utils` and `tools` are the real ones.
    """
    for name in ("utils", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(EGS / "TEMPLATE", tmp_path / "egs/TEMPLATE")
    folder = Path(sys.executable).parent
    environment = {**os.environ, "SPEECHKIT_VENV": "active", "PATH": f"{folder}:{os.environ['PATH']}"}
    environment["OMP_NUM_THREADS"] = "1"

    def run(line, cwd=tmp_path):
        return subprocess.run(
            ["bash", "-c", line], cwd=cwd, env=environment, capture_output=True, text=True, timeout=280
        )

    return run


def blocks(language):
    """The fenced blocks of the tutorial in the language given."""
    section = TUTORIAL.split("## A corpus of your own")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def make_corpus(folder):
    """<folder>/<speaker>/<number>.wav with its sentence beside it, as the tutorial supposes."""
    for number, speaker in enumerate(SPEAKERS):
        for take, sentence in enumerate(SENTENCES):
            make_wave(folder / speaker / f"{take:04d}.wav", seconds=1.5, seed=10 * number + take)
            (folder / speaker / f"{take:04d}.txt").write_text(sentence + "\n")


def make_recipe(shell, tmp_path):
    """The tutorial's first two steps; returns the recipe's folder. The copy's egs takes the recipe."""
    line = blocks("bash")[0].strip()
    assert line == "utils/new_recipe.py my_corpus asr1"
    done = shell(f"{line} --egs egs")
    assert done.returncode == 0, done.stderr
    recipe = tmp_path / "egs/my_corpus/asr1"
    (program,) = blocks("python")
    assert len(program.splitlines()) < 30, "the tutorial promises a corpus in under 30 lines"
    (recipe / "local/data.py").write_text(program)
    make_corpus(tmp_path / "my_corpus")
    return recipe


def follow(shell, tmp_path, block):
    """Runs a block of the tutorial as it stands, but for where the corpus lies."""
    text = block.replace("/path/to/my_corpus", str(tmp_path / "my_corpus"))
    return shell(f"set -euo pipefail\n{text}", tmp_path / "egs/my_corpus/asr1")


def test_tutorial_makes_valid_data_directories(shell, tmp_path):
    recipe = make_recipe(shell, tmp_path)
    look = blocks("bash")[1]
    assert look.startswith("cd egs/my_corpus/asr1\n./run.sh --stage 1 --stop-stage 1 --corpus-dir")
    done = follow(shell, tmp_path, look.replace("cd egs/my_corpus/asr1\n", ""))
    assert done.returncode == 0, done.stderr
    assert "8 utterances, 2 speakers" in done.stderr and "0 problem(s)" in done.stderr
    speakers = {name: (recipe / f"data/{name}/spk2utt").read_text().split()[0] for name in ("dev", "test")}
    assert speakers == {"dev": "cleo", "test": "dora"}
    assert (recipe / "data/train/text").read_text().startswith("anna-0000 we see the sea\n")
    assert len((recipe / "data/train/wav.scp").read_text().splitlines()) == 8


@pytest.mark.slow
def test_tutorial_reaches_a_table(shell, tmp_path):
    recipe = make_recipe(shell, tmp_path)
    (recipe / "conf/train.yaml").write_text(
        "model: {encoder: {dim: 16, layers: 1, heads: 2, feed_forward: 16}}\n"
        "plan: {seconds: 12}\nloop: {max_updates: 6}\nvalidation: {every: 3}\n"
    )
    steps = blocks("bash")
    assert steps[2].startswith("./run.sh --stage 2 --corpus-dir")
    for step in (steps[1].replace("cd egs/my_corpus/asr1\n", ""), steps[2]):
        done = follow(shell, tmp_path, step)
        assert done.returncode == 0, done.stdout + done.stderr
    table = (recipe / "RESULTS.md").read_text()
    assert "greedy" in table and "4gram" in table and "%" in table
    for name in ("dev", "test"):
        for how in ("greedy", "4gram"):
            assert (recipe / f"exp/ctc/seed1/decode_{name}_{how}/result.json").is_file()
    # Everything is done: the stages skip themselves, and nothing changes.
    again = shell("./run.sh --stage 2", recipe)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is up to date") >= 8 and (recipe / "RESULTS.md").read_text() == table


def write_tsv(corpus, name, rows):
    (corpus / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))


@pytest.fixture
def corpus(tmp_path):
    """What the template's own local/data.py reads: a table for each set."""
    folder = tmp_path / "corpus"
    for number, name in enumerate(("train", "dev", "test")):
        audio = make_wave(folder / f"clips/{name}.wav", seconds=0.5, seed=number)
        write_tsv(folder, name, [(str(audio.relative_to(folder)), SPEAKERS[number], "good morning")])
    return folder


def prepare(shell, tmp_path):
    return shell("./run.sh --stop-stage 1 --corpus-dir ../../../corpus", tmp_path / "egs/TEMPLATE/asr1")


def test_the_templates_own_reader(shell, tmp_path, corpus):
    done = prepare(shell, tmp_path)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "egs/TEMPLATE/asr1/data"
    assert (data / "train/text").read_text() == "anna-train good morning\n"
    assert (data / "dev/utt2spk").read_text() == "ben-dev ben\n"


@pytest.mark.parametrize(
    "rows, says",
    [
        ([("clips/dev.wav", "ben")], "dev.tsv:1: needs three columns"),
        ([("clips/dev.wav", "ben", "one"), ("x/dev.wav", "ben", "two")], "dev.tsv:2: a second recording"),
        ([("clips/dev.wav", "b n", "one")], "data/dev/"),
        ([], "data/dev"),
        (None, "dev.tsv"),
    ],
)
def test_a_bad_table_is_named(shell, tmp_path, corpus, rows, says):
    if rows is None:
        (corpus / "dev.tsv").unlink()
    else:
        write_tsv(corpus, "dev", rows)
    done = prepare(shell, tmp_path)
    assert done.returncode != 0 and says in done.stderr and "Traceback" not in done.stderr
    assert "stage 1 (data preparation) failed" in done.stderr
    assert not (tmp_path / "egs/TEMPLATE/asr1/data/dev").exists()
