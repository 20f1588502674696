"""The main recipe from synthesis to RESULTS.md, on its quick version, through run.sh itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import speechkit

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/mini_en/asr1"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A copy of the recipe, without what a user's own runs may have left there."""
    copy = tmp_path_factory.mktemp("mini_en") / "asr1"
    copy.mkdir()
    for name in ("run.sh", "path.sh", "cmd.sh", "conf", "local"):
        source = RECIPE / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    return copy


def run(recipe, *arguments):
    environment = {**os.environ, "SPEECHKIT_VENV": "active", "SPEECHKIT_ROOT": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("OMP_NUM_THREADS", None)
    command = ["./run.sh", "--quick", "true", "--methods", "bert*,ctc,wavbert", *arguments]
    return subprocess.run(command, cwd=recipe, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.timeout(600)
def test_from_synthesis_to_a_table_and_again(recipe):
    done = run(recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    exp = recipe / "quick/exp/ctc/seed1"
    table = (recipe / "quick/RESULTS.md").read_text()
    for how in ("greedy", "lexicon", "4gram", "rescore"):
        assert f"| ctc | {how} | characters | 1 |" in table
        result = json.loads((exp / f"decode_test_{how}/result.json").read_text())
        assert {"far", "near", "other", "seen", "unseen"} <= result["classes"].keys()
        assert result["counts"]["words"] > 300
    assert "| wavbert | fused | characters | 1 |" in table
    fused = recipe / "quick/exp/wavbert/seed1/decode_test_fused"
    assert len((fused / "text").read_text().splitlines()) == 40
    assert (recipe / "quick/exp/bert_folder/seed1/bert/model.safetensors").is_file()

    tuned = json.loads((exp / "tune_4gram.json").read_text())
    assert tuned["set"].endswith("dump/dev") and len(tuned["trials"]) == 2
    assert (recipe / "quick/images/wer_test.png").stat().st_size > 1000

    words = set((recipe / "quick/data/lm/words").read_text().split())
    hypotheses = (exp / "decode_test_4gram/text").read_text().splitlines()
    assert all(set(line.split()[1:]) <= words for line in hypotheses)

    rows = (recipe / "quick/dump/train/ledger.jsonl").read_text().splitlines()
    assert len(rows) >= 160  # every utterance has a fate

    audio = next((recipe / "quick/downloads/mini_en/test/audio").glob("*.flac"))
    assert isinstance(speechkit.load(exp).transcribe(audio), str)

    before = {path: path.stat().st_mtime_ns for path in exp.rglob("model.safetensors")}
    again = run(recipe)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "is up to date" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in exp.rglob("model.safetensors")}
    assert (recipe / "quick/RESULTS.md").read_text() == table
