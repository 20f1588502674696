"""The same sentences scored by kenlm's Python module on the same ARPA file, and lmplz on other text.

Runs where tools/install_kenlm.sh has put kenlm; skipped elsewhere.
"""

import json
import random
import subprocess
from pathlib import Path

import pytest

from speechkit.lm import read_arpa, train_ngram, write_arpa

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "tools/venv-decoders/bin/python"
LMPLZ = ROOT / "tools/build/kenlm/bin/lmplz"
SCORE = """
import json, sys, kenlm
lm = kenlm.Model(sys.argv[1])
print(json.dumps([lm.score(line.rstrip("\\n")) for line in open(sys.argv[2])]))
"""

pytestmark = pytest.mark.peers


def has_kenlm():
    return (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-c", "import kenlm"], capture_output=True).returncode == 0
    )


def random_text(lines, seed):
    choose = random.Random(seed)
    words = [f"w{i}" for i in range(60)]
    weights = [1 / (i + 1) for i in range(60)]
    return [" ".join(choose.choices(words, weights, k=choose.randint(1, 9))) for _ in range(lines)]


@pytest.mark.parametrize("order", [2, 4, 6])  # kenlm's module refuses order 1
def test_scores_equal_kenlm(tmp_path, order):
    if not has_kenlm():
        pytest.skip("kenlm is not installed (tools/install_kenlm.sh)")
    lm = train_ngram(random_text(400, seed=order), order, discount_fallback=(0.5, 1.0, 1.5))
    write_arpa(lm, tmp_path / "lm.arpa")
    lines = [*random_text(100, seed=99), "w0 unknown w1", "unknown", "w0 w1 " * 8]
    (tmp_path / "text").write_text("\n".join(lines) + "\n")
    command = [PYTHON, "-c", SCORE, tmp_path / "lm.arpa", tmp_path / "text"]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ours = read_arpa(tmp_path / "lm.arpa").score_sentences(lines).log10
    assert ours.tolist() == pytest.approx(theirs, abs=2e-4)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_estimates_equal_lmplz(tmp_path, order):
    if not LMPLZ.exists():
        pytest.skip("lmplz is not built (tools/install_kenlm.sh)")
    # A last new word that is there once: see test/fixtures/README.md.
    lines = [*random_text(500, seed=order), "w0 once"]
    (tmp_path / "text").write_text("\n".join(lines) + "\n")
    command = [LMPLZ, "-o", str(order), "-S", "50M", "--discount_fallback", "--text", tmp_path / "text"]
    subprocess.run([*command, "--arpa", tmp_path / "lm.arpa"], capture_output=True, check=True)
    theirs, ours = (
        read_arpa(tmp_path / "lm.arpa"),
        train_ngram(lines, order, discount_fallback=(0.5, 1.0, 1.5)),
    )
    assert list(map(len, ours.levels)) == list(map(len, theirs.levels))
    for one, two in zip(ours.levels, theirs.levels):
        assert one.log10[one.word.argsort()].sum() == pytest.approx(two.log10.sum(), rel=1e-5)
    assert ours.score_sentences(lines).log10.tolist() == pytest.approx(
        theirs.score_sentences(lines).log10.tolist(), abs=1e-4
    )
