"""The matrix: expansion of systems into jobs, order by need, failures named."""

import sys
from pathlib import Path

import pytest

from speechkit.bin import matrix
from speechkit.bin.__main__ import main
from speechkit.errors import InputError
from speechkit.systems import ON_THIS_HOST, Job, decode_jobs, read_systems, score_jobs, select, train_jobs

SYSTEMS = """
train_sets: [dump/train]
dev_set: dump/dev
tokenizer: data/tokens/char
test_sets: [dump/dev, dump/test]
seeds: 2
decodes:
  greedy: {config: conf/greedy.yaml}
  4gram: {config: conf/beam.yaml, lm: lm.arpa, lexicon: lexicon.txt, tune_on: dump/dev}
systems:
  ctc: {title: plain, train: conf/ctc.yaml, decodes: [greedy, 4gram]}
  tuned: {title: second, train: c.yaml, options: [optim.lr=1e-4], needs: [ctc], decodes: [greedy], seeds: 1}
"""


@pytest.fixture
def systems(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(SYSTEMS)
    return read_systems(path)


def test_training_is_expanded_over_systems_and_seeds(systems):
    jobs = train_jobs(systems, systems.systems, None, Path("exp"))
    assert [job.name for job in jobs] == ["ctc/seed1", "ctc/seed2", "tuned/seed1"]
    assert jobs[2].needs == ("ctc/seed1",) and jobs[2].command[-2:] == ["seed=1", "optim.lr=1e-4"]
    assert len(train_jobs(systems, systems.systems, 3, Path("exp"))) == 6


def test_decoding_covers_all_sets_and_tunes_on_dev(systems):
    jobs = decode_jobs(systems, select(systems, "ctc"), 1, Path("exp"))
    assert [job.name for job in jobs] == ["ctc/seed1/greedy", "ctc/seed1/4gram"]
    command = " ".join(jobs[1].command)
    assert (
        "--data dump/dev dump/test" in command
        and "--tune-on dump/dev" in command
        and "--lm lm.arpa" in command
    )


def test_scoring_needs_every_decode(systems, tmp_path):
    with pytest.raises(InputError, match="run stage 6 for 'ctc' first"):
        score_jobs(systems, systems.systems, None, tmp_path)


def test_an_unknown_method_exits_2(tmp_path, capsys):
    path = tmp_path / "systems.yaml"
    path.write_text(SYSTEMS)
    assert main(["matrix", "--systems", str(path), "--stage", "5", "--methods", "ctx"]) == 2
    assert "did you mean 'ctc'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("decodes: [greedy, 4gram]", "decodes: [greedi]", "no decode 'greedi'; did you mean 'greedy'?"),
        ("needs: [ctc]", "needs: [ctd]", "no system 'ctd'; did you mean 'ctc'?"),
        ("dev_set:", "def_set:", "def_set: unknown key; did you mean 'dev_set'?"),
    ],
)
def test_bad_systems_files_are_named(old, new, message, tmp_path, capsys):
    path = tmp_path / "systems.yaml"
    path.write_text(SYSTEMS.replace(old, new))
    assert main(["matrix", "--systems", str(path), "--stage", "5"]) == 1
    assert message in capsys.readouterr().err


def job(tmp_path, name, code, needs=()):
    return Job(name, [sys.executable, "-c", code], tmp_path / f"{name}.log", needs)


def test_jobs_run_in_order_of_need_and_failures_block_their_dependants(tmp_path, monkeypatch):
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[2:], stdout=open(sys.argv[1], 'w')))\n"
    )
    monkeypatch.setenv("train_cmd", f"{sys.executable} {runner}")
    log = tmp_path / "order"
    note = f"open({str(log)!r}, 'a').write"
    jobs = [
        job(tmp_path, "c", f"{note}('c')", ("b",)),
        job(tmp_path, "b", f"{note}('b')"),
        job(tmp_path, "bad", "raise SystemExit(3)"),
        job(tmp_path, "after", f"{note}('x')", ("bad",)),
        job(tmp_path, "later", f"{note}('y')", ("after",)),
    ]
    failed = matrix.run_jobs(jobs, lanes=2)
    assert sorted(job.name for job in failed) == ["after", "bad", "later"]
    assert log.read_text() == "bc"


def test_a_circle_of_needs_fails_instead_of_hanging(tmp_path):
    jobs = [job(tmp_path, "a", "", ("b",)), job(tmp_path, "b", "", ("a",))]
    assert len(matrix.run_jobs(jobs, lanes=1)) == 2


def test_data_paths_follow_the_work_folder(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(SYSTEMS)
    systems = read_systems(path, "quick")
    (job,) = train_jobs(systems, select(systems, "tuned"), None, Path("quick/exp"))
    command = " ".join(job.command)
    assert "--config c.yaml --train quick/dump/train --dev quick/dump/dev" in command
    assert "--tokenizer quick/data/tokens/char --exp quick/exp/tuned/seed1" in command
    command = " ".join(decode_jobs(systems, select(systems, "ctc"), 1, Path("quick/exp"))[1].command)
    assert "--lexicon quick/lexicon.txt --lm quick/lm.arpa --tune-on quick/dump/dev" in command


def test_training_in_several_processes_goes_through_torchrun(systems):
    (job,) = train_jobs(systems, select(systems, "tuned"), None, Path("exp"), processes=2)
    assert job.command[:11] == ["torchrun", *ON_THIS_HOST, "--nproc-per-node", "2", "-m", "speechkit.bin"]
    assert job.command[6:9] == ["train", "--config", "c.yaml"]
