"""Orderings that a systems file expects, tested by `speechkit report`, and the short table for a README."""

import re
from pathlib import Path

import pytest

from speechkit.bin.__main__ import main
from speechkit.errors import ProblemsError
from speechkit.metrics.report import END, START
from speechkit.orderings import Ordering, read_ordering
from speechkit.systems import read_systems

SYSTEMS = """\
train_sets: [dump/train]
dev_set: dump/dev
tokenizer: data/tokens/char
test_sets: [dump/test]
seeds: 2
orderings: ["good/greedy < bad/greedy", "bad/greedy < good/greedy in far", "same/greedy < good/greedy",
  "good/greedy < later/greedy", "good/greedy < bad/greedy in none"]
decodes:
  greedy: {config: a.yaml}
systems:
  good: {title: Good, train: a.yaml, decodes: [greedy]}
  same: {title: The same, train: a.yaml, decodes: [greedy]}
  bad: {title: Bad, train: a.yaml, decodes: [greedy]}
  later: {title: Later, train: a.yaml, decodes: [greedy]}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Scored decodes of three systems: every fourth far word of the bad one is wrong."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "systems.yaml").write_text(SYSTEMS)
    data = Path("dump/test")
    data.mkdir(parents=True)
    ids = [f"s{speaker}-{number}" for speaker in range(8) for number in range(12)]
    (data / "text").write_text("".join(f"{u} one two\n" for u in ids))
    (data / "utt2spk").write_text("".join(f"{u} {u[:2]}\n" for u in ids))
    (data / "word_tags").write_text("".join(f"{u} far other\n" for u in ids))
    for system in ("good", "same", "bad"):
        for seed in (1, 2):
            folder = Path("exp", system, f"seed{seed}", "decode_test_greedy")
            folder.mkdir(parents=True)
            wrong = [system == "bad" and number % 4 == seed for number in range(len(ids))]
            lines = (f"{u} {'nine' if bad else 'one'} two\n" for u, bad in zip(ids, wrong))
            (folder / "text").write_text("".join(lines))
            (folder / "decode.json").write_text("{}")
            assert main(["score", "--data", "dump/test", str(folder)]) == 0


def test_every_expectation_is_tested_or_said_to_fail(recipe):
    assert main(["report", "--systems", "systems.yaml", "--plots", "false"]) == 0
    section = Path("RESULTS.md").read_text().split("### Orderings on test")[1].split("##")[0]
    rows = {line.split("|")[1].strip(" `"): line for line in section.splitlines() if line.startswith("| `")}
    assert re.search(
        r"\| 2, 2 \| 0.00 \| 12.50 \| -12.50 \[.*\] \| p < 0.001 \| holds \|",
        rows["good/greedy < bad/greedy"],
    )
    far = rows["bad/greedy < good/greedy in far"]
    assert "| 25.00 | 0.00 | +25.00 [" in far and far.endswith("| p < 0.001 | reversed |")
    assert rows["same/greedy < good/greedy"].endswith("| p = 1.000 | not distinguishable |")
    assert (
        "or no such words" in rows["good/greedy < bad/greedy in none"] and len(rows) == 4
    )  # later was not run


def test_the_short_table_takes_the_place_of_the_one_before(recipe):
    readme = Path("README.md")
    readme.write_text(f"# Mine\n\n{START}\n\nold\n\n{END}\n\nrest\n")
    for _ in range(2):
        assert main(["report", "--systems", "systems.yaml", "--plots", "false", "--brief", "README.md"]) == 0
        text = readme.read_text()
        assert text.startswith(f"# Mine\n\n{START}\n\n| system | decoding | seeds | WER %")
        assert text.endswith(f"{END}\n\nrest\n") and "old" not in text
    assert re.search(r"\| Bad \| greedy \| 2 \| 12.50 ± 0.00 \| \S+ – \S+ \| 25.00 \| 0.00 \|", text)


def test_an_ordering_is_read_as_it_is_written():
    assert read_ordering(" a/b < c/d ") == Ordering("a/b", "c/d")
    for claim in ("a/b < c/d", "a/b < c/d in far"):
        assert read_ordering(claim).claim == claim


@pytest.mark.parametrize("text", ["", "a/b", "a < b", "a/b > c/d", "a/b < c/d < e/f", "a/b < c/d in"])
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match="expected system/how < system/how"):
        read_ordering(text)


def test_rows_that_nothing_makes_are_refused(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(SYSTEMS.replace("later/greedy", "latter/greedy"))
    with pytest.raises(ProblemsError, match=r"no row 'latter/greedy'.*'later/greedy'"):
        read_systems(path)
