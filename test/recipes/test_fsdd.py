"""The spoken-digit recipe: its splits, its download, and what it says when something is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_wave

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/fsdd/asr1"
SPEAKERS = ("george", "jackson", "lucas", "yweweler")
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture
def corpus(tmp_path):
    """Two takes of every digit by four speakers, named as in the corpus."""
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for take in range(2):
                path = tmp_path / f"corpus/recordings/{digit}_{speaker}_{take}.wav"
                make_wave(path, seconds=0.4, rate=8000, seed=100 * number + 10 * take + digit)
    return tmp_path / "corpus"


def data_py(*arguments, cwd):
    command = [sys.executable, RECIPE / "local/data.py", *arguments]
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=60)


def speakers(folder):
    return {line.split()[0] for line in (folder / "spk2utt").read_text().splitlines()}


def test_no_speaker_is_in_two_sets(corpus, tmp_path):
    assert data_py(corpus, "data", cwd=tmp_path).returncode == 0
    data = tmp_path / "data"
    assert {name: speakers(data / name) for name in ("train", "dev", "test")} == {
        "train": {"jackson", "lucas"},
        "dev": {"yweweler"},
        "test": {"george"},
    }
    for name, count in (("train", 40), ("dev", 20), ("test", 20)):
        lines = (data / name / "text").read_text().splitlines()
        assert len(lines) == count
        for utterance, word in map(str.split, lines):
            speaker, digit, take = utterance.split("-")
            assert word == WORDS[int(digit)]
            path = (data / name / "wav.scp").read_text().split(f"{utterance} ")[1].split("\n")[0]
            assert path == str(corpus / f"recordings/{digit}_{speaker}_{int(take)}.wav")


def test_other_speakers_can_be_kept(corpus, tmp_path):
    done = data_py(corpus, "data", "--dev", "lucas", "--test", "jackson", cwd=tmp_path)
    assert done.returncode == 0
    assert speakers(tmp_path / "data/train") == {"george", "yweweler"}


def test_a_missing_speaker_or_corpus_is_named_and_nothing_written(corpus, tmp_path):
    done = data_py(corpus, "data", "--test", "nobody", cwd=tmp_path)
    assert done.returncode == 1
    assert "no recordings for test; the speakers are george, jackson, lucas, yweweler" in done.stderr
    empty = data_py(tmp_path / "nowhere", "data", cwd=tmp_path)
    assert empty.returncode == 1 and "nowhere: no recordings/" in empty.stderr
    shutil.copytree(corpus / "recordings", corpus / "copy")
    twice = data_py(corpus, "data", cwd=tmp_path)
    assert twice.returncode == 1 and "the same take as" in twice.stderr
    assert not (tmp_path / "data").exists()


def download(tmp_path, git, folder="downloads/fsdd"):
    """Calls local/download.sh with a fake git, or with none when `git` is None."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("bash", "env", "rm", "mkdir", "dirname", "mv"):
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(shutil.which(name))
    if git is not None:
        (programs / "git").write_text(f"#!/bin/bash\n{git}\n")
        (programs / "git").chmod(0o755)
    return subprocess.run(
        [RECIPE / "local/download.sh", folder],
        cwd=tmp_path,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_download_clones_by_https_once(tmp_path):
    git = 'echo "$GIT_ALLOW_PROTOCOL $*" >>calls; mkdir -p "${@: -1}/recordings"'
    assert download(tmp_path, git).returncode == 0
    assert download(tmp_path, git).returncode == 0
    url = "https://github.com/Jakobovski/free-spoken-digit-dataset"
    assert (tmp_path / "calls").read_text() == f"https clone --quiet --depth 1 {url} downloads/fsdd.tmp\n"
    assert (tmp_path / "downloads/fsdd/recordings").is_dir()


@pytest.mark.parametrize("git", [None, 'mkdir -p "${@: -1}"; exit 128'], ids=["no git", "no network"])
def test_a_download_that_fails_says_what_to_do(tmp_path, git):
    done = download(tmp_path, git)
    assert done.returncode == 1 and "--corpus-dir /path/to/it" in done.stderr
    assert ("install the package git" if git is None else "is there a network?") in done.stderr
    assert not (tmp_path / "downloads/fsdd").exists() and not (tmp_path / "downloads/fsdd.tmp").exists()


@pytest.mark.slow
def test_all_stages_on_made_up_sound(corpus, tmp_path):
    """Ten sounds that differ by digit and hardly by speaker: the recipe learns them."""
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for take in range(2):
                path = corpus / f"recordings/{digit}_{speaker}_{take}.wav"
                make_wave(path, seconds=0.4 + 0.01 * take + 0.02 * number, rate=8000, seed=digit)
    recipe = tmp_path / "egs/fsdd/asr1"
    ignore = shutil.ignore_patterns("data", "dump", "exp", "downloads", "RESULTS.md", "images")
    shutil.copytree(RECIPE, recipe, ignore=ignore)
    (recipe / "conf/train.yaml").write_text(
        "model: {encoder: {dim: 32, layers: 1, heads: 2, feed_forward: 32, dropout: 0.0}}\n"
        "plan: {seconds: 20}\noptim: {lr: 5e-3}\nloop: {max_updates: 150}\nvalidation: {every: 50}\n"
    )
    folder = Path(sys.executable).parent
    environment = {**os.environ, "SPEECHKIT_ROOT": str(ROOT), "SPEECHKIT_VENV": "active"}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["./run.sh", "--stage", "1", "--corpus-dir", str(corpus)]
    done = subprocess.run(command, cwd=recipe, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((recipe / "exp/ctc/seed1/decode_test_greedy/result.json").read_text())
    assert result["set"] == "test" and result["system"] == "ctc"
    line = (recipe / "exp/ctc/seed1/decode_test_greedy/wer").read_text().splitlines()[0]
    assert re.match(r"%WER \d+\.\d\d \[ [0-3] / 20,", line), f"guessing gets 18 of 20 wrong: {line}"
    assert "test" in (recipe / "RESULTS.md").read_text()
