"""The matrix: expansion of systems into jobs, order by need, failures named."""

import json
import sys
from pathlib import Path

import pytest

from speechkit.bin import matrix
from speechkit.bin.__main__ import main
from speechkit.errors import InputError
from speechkit.jobs import ON_THIS_HOST, Job, choose_options, decode_jobs, score_jobs, train_jobs, tune_jobs
from speechkit.systems import read_systems, select

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
    more = train_jobs(systems, systems.systems, 3, Path("exp"))
    assert [job.name for job in more] == ["ctc/seed1", "ctc/seed2", "ctc/seed3", "tuned/seed1"], (
        "no more than its own"
    )


@pytest.mark.parametrize(
    "methods, names", [("*", ["ctc", "tuned"]), ("t*", ["tuned"]), ("tuned,c*", ["ctc", "tuned"])]
)
def test_patterns_choose_systems(systems, methods, names):
    assert list(select(systems, methods)) == names


def test_a_pattern_stands_for_the_data_directories_that_match(tmp_path, monkeypatch):
    rows = "  all: {title: t, stage: 4, train: c.yaml, train_sets: ['l/*/train'], dev_set: 'l/*/dev'}"
    (tmp_path / "systems.yaml").write_text(f"{SYSTEMS}{rows}\n")
    monkeypatch.chdir(tmp_path)
    for part in ("b/train", "a/train", "a/dev"):
        (tmp_path / "l" / part).mkdir(parents=True)
    chosen = select(read_systems("systems.yaml"), "al*")
    (job,) = train_jobs(read_systems("systems.yaml"), {"all": chosen["all"]}, 1, Path("exp"), stage=4)
    command = " ".join(job.command)
    assert "--train l/a/train l/b/train --dev l/a/dev --exp" in command


def test_decoding_covers_all_sets_and_tunes_on_dev(systems):
    jobs = decode_jobs(systems, select(systems, "ctc"), 1, Path("exp"))
    assert [job.name for job in jobs] == ["ctc/seed1/greedy", "ctc/seed1/4gram"]
    command = " ".join(jobs[1].command)
    assert (
        "--data dump/dev dump/test" in command
        and "--tune-on dump/dev" in command
        and "--lm lm.arpa" in command
    )


def test_a_bert_lies_below_the_work_folder_or_on_the_hub(tmp_path):
    rows = (
        "  folder: {config: r.yaml, bert: 'exp/bert/seed{seed}/b'}\n  hub: {config: r.yaml, bert: bert-x}\n"
    )
    path = tmp_path / "systems.yaml"
    path.write_text(
        SYSTEMS.replace("systems:\n", f"{rows}systems:\n").replace("[greedy, 4gram]", "[folder, hub]")
    )
    systems = read_systems(path, "w")
    jobs = decode_jobs(systems, select(systems, "ctc"), 2, Path("w/exp"))
    berts = [job.command[job.command.index("--bert") + 1] for job in jobs]
    assert berts == ["w/exp/bert/seed1/b", "bert-x", "w/exp/bert/seed2/b", "bert-x"]


def test_scoring_needs_every_decode(systems, tmp_path):
    with pytest.raises(InputError, match="run stage 6 for 'ctc' first"):
        score_jobs(systems, systems.systems, None, tmp_path)


def test_scoring_is_told_whether_cer_counts_spaces(tmp_path, capsys):
    path = tmp_path / "systems.yaml"
    path.write_text(SYSTEMS)
    command = ["matrix", "--systems", str(path), "--work", str(tmp_path), "--dry-run", "true"]
    command += ["--methods", "tuned", "--seeds", "1"]
    for data in ("dev", "test"):
        (tmp_path / f"exp/tuned/seed1/decode_{data}_greedy").mkdir(parents=True)
        (tmp_path / f"exp/tuned/seed1/decode_{data}_greedy/text").write_text("a b\n")
    for options, end in (([], []), (["--cer-spaces", "false"], ["--cer-spaces", "false"])):
        assert main([*command, "--stage", "7", *options]) == 0
        jobs = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [job[1] for job in jobs] == ["score", "score"]
        assert [job[job.index("--data") + 3 :] for job in jobs] == [end, end]
    assert main([*command, "--stage", "6", "--cer-spaces", "true"]) == 0
    assert "--cer-spaces" not in capsys.readouterr().out


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
    assert job.command[11:14] == ["train", "--config", "c.yaml"]


# ---- pre-training, fine-tuning, tuning ----------------------------------------------------------------

PRETRAINED = """
train_sets: [dump/train]
dev_set: dump/dev
tokenizer: data/tokens/char
cmvn: dump/unlabelled/cmvn.json
test_sets: [dump/test]
seeds: 2
decodes: {greedy: {config: conf/greedy.yaml}}
systems:
  first: {title: a, stage: 4, train: a.yaml, train_sets: [dump/unlabelled], dev_set: dump/dev_labels}
  labels:
    title: labels
    stage: 4
    needs: [first]
    commands: ["learn --model {work}/exp/first/seed{seed} --name 'a b'", "apply --out km_{seed}.txt"]
  second: {title: b, stage: 4, train: b.yaml, needs: [labels], options: ["model.labels=[first_{seed}]"]}
  tuned: {title: c, train: c.yaml, init_encoder: second, tune: {grid: {lr: [1, 2], x: [a]}, metric: cer}}
"""


@pytest.fixture
def pretrained(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(PRETRAINED)
    return read_systems(path, "w")


def test_each_stage_has_its_systems(pretrained):
    chosen = pretrained.systems
    first, *_ = train_jobs(pretrained, chosen, 1, Path("w/exp"), stage=4)
    assert first.command == (
        "speechkit train --config a.yaml --train w/dump/unlabelled --dev w/dump/dev_labels "
        "--exp w/exp/first/seed1 --cmvn w/dump/unlabelled/cmvn.json seed=1"
    ).split(" ")
    names = {
        stage: [j.name for j in train_jobs(pretrained, chosen, 1, Path("w"), 1, stage)] for stage in (4, 5)
    }
    assert names[4] == ["first/seed1", "labels/seed1/1", "labels/seed1", "second/seed1"]
    assert names[5] == ["tuned/seed1"]


def test_commands_run_between_two_pretrainings_for_every_seed(pretrained):
    jobs = {job.name: job for job in train_jobs(pretrained, pretrained.systems, None, Path("w/exp"), stage=4)}
    learn, apply, second = jobs["labels/seed2/1"], jobs["labels/seed2"], jobs["second/seed2"]
    assert learn.command == ["learn", "--model", "w/exp/first/seed2", "--name", "a b"]
    assert learn.needs == ("first/seed2",) and apply.needs == ("labels/seed2/1",)
    assert apply.command == ["apply", "--out", "km_2.txt"] and apply.log != learn.log
    assert second.needs == ("labels/seed2",) and second.command[-1] == "model.labels=[first_2]"


def test_fine_tuning_starts_from_the_encoder_of_its_own_seed(pretrained):
    job = train_jobs(pretrained, pretrained.systems, None, Path("w/exp"))[1]
    assert job.command[job.command.index("--init-encoder") + 1] == "w/exp/second/seed2"
    assert job.needs == ("second/seed2",)


def test_options_are_tuned_on_dev_with_a_seed_of_their_own(pretrained, tmp_path):
    trials = tune_jobs(pretrained, pretrained.systems, tmp_path)
    assert [job.name for job in trials] == ["tuned/tune/lr=1,x=a", "tuned/tune/lr=2,x=a"]
    assert trials[1].command[-3:] == ["seed=0", "lr=2", "x=a"]
    assert f"{tmp_path}/second/seed1" in trials[1].command
    for number, cer in ((1, 20.5), (2, 19.5)):
        final = tmp_path / f"tuned/tune/lr={number},x=a/final"
        final.mkdir(parents=True)
        (final / "run.json").write_text(json.dumps({"dev": {"cer": cer, "wer": 10 * number}}))
    choose_options(pretrained, pretrained.systems, tmp_path)
    record = json.loads((tmp_path / "tuned/tuned.json").read_text())
    assert record["chosen"] == ["lr=2", "x=a"] and [row["cer"] for row in record["trials"]] == [20.5, 19.5]
    assert record["set"] == "w/dump/dev" and record["metric"] == "cer"
    for job in train_jobs(pretrained, pretrained.systems, None, tmp_path):
        assert job.command[-2:] == ["lr=2", "x=a"]


def test_an_unknown_tuning_metric_is_named(pretrained, tmp_path):
    for number in (1, 2):
        final = tmp_path / f"tuned/tune/lr={number},x=a/final"
        final.mkdir(parents=True)
        (final / "run.json").write_text('{"dev": {"loss": 1}}')
    with pytest.raises(InputError, match="no dev value 'cer'; there are: loss"):
        choose_options(pretrained, pretrained.systems, tmp_path)


def test_a_dry_run_shows_trials_and_leaves_the_choice_open(tmp_path, capsys):
    path = tmp_path / "systems.yaml"
    path.write_text(PRETRAINED)
    command = ["matrix", "--systems", str(path), "--work", str(tmp_path), "--dry-run", "true"]
    assert main([*command, "--stage", "5", "--seeds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["lr=1" in line for line in lines] == [True, False, False]
    assert lines[-1].endswith("seed=1 '<chosen on the dev set>'")


def test_tuning_and_training_run_through_the_matrix(tmp_path, monkeypatch):
    """The real command line, with a runner that writes what a training would leave."""
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import json, pathlib, sys\n"
        "exp = pathlib.Path(sys.argv[sys.argv.index('--exp') + 1])\n"
        "(exp / 'final').mkdir(parents=True)\n"
        "cer = abs(2.4 - sum(float(w[3:]) for w in sys.argv if w.startswith('lr=')))\n"
        "(exp / 'final/run.json').write_text(json.dumps({'dev': {'cer': cer}, 'command': sys.argv}))\n"
    )
    monkeypatch.setenv("train_cmd", f"{sys.executable} {runner}")
    path = tmp_path / "systems.yaml"
    path.write_text(PRETRAINED)
    assert (
        main(["matrix", "--systems", str(path), "--work", str(tmp_path), "--stage", "5", "--lanes", "2"]) == 0
    )
    for seed in (1, 2):
        run = json.loads((tmp_path / f"exp/tuned/seed{seed}/final/run.json").read_text())
        assert run["command"][-3:] == [f"seed={seed}", "lr=2", "x=a"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "init_encoder: second",
            "init_encoder: secund",
            "init_encoder: no system 'secund'; did you mean 'second'?",
        ),
        ("stage: 4, train: a.yaml", "stage: 4, train: a.yaml, decodes: [greedy]", "stage 4 trains nothing"),
        ("    needs: [first]", "    train: x.yaml", "commands stand instead of train"),
        ("train: c.yaml, ", "", "tune and init_encoder need train"),
        ("grid: {lr: [1, 2], x: [a]}", "grid: {lr: []}", "needs at least one option"),
        ("{title: c,", "{title: c, minutes: 3,", "curve and minutes go together"),
        ("stage: 4, train: a.yaml", "stage: 3, train: a.yaml", "3 is not one of 4, 5"),
    ],
)
def test_bad_pretraining_systems_are_named(old, new, message, tmp_path, capsys):
    assert old in PRETRAINED
    path = tmp_path / "systems.yaml"
    path.write_text(PRETRAINED.replace(old, new))
    assert main(["matrix", "--systems", str(path), "--stage", "4"]) == 1
    assert message in capsys.readouterr().err


BUDGETS = PRETRAINED.replace("seeds: 2", "seeds: 1\nbudgets: {3min: 3, 1h: 60}") + (
    '  plain: {title: from nothing, train: d.yaml, train_sets: ["dump/{budget}"], budgets: [3min, 1h], '
    "decodes: [greedy]}\n"
    "  tuned_again: {title: again, train: d.yaml, init_encoder: plain, against: plain, budgets: [1h], "
    'options: ["x={budget}"]}\n'
)


def test_a_system_with_budgets_is_one_system_for_each(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text(BUDGETS)
    systems = read_systems(path, "w")
    assert list(systems.systems)[4:] == ["plain_3min", "plain_1h", "tuned_again_1h"]
    point, again = systems.systems["plain_3min"], systems.systems["tuned_again_1h"]
    assert (point.curve, point.minutes, point.title) == ("from nothing", 3, "from nothing, 3min")
    assert point.train_sets == ["w/dump/3min"] and again.options == ["x=1h"]
    assert again.init_encoder == again.against == "plain_1h"
    jobs = train_jobs(systems, select(systems, "plain_*,tuned_again_1h"), None, Path("w/exp"))
    assert jobs[-1].needs == ("plain_1h/seed1",) and "w/exp/plain_1h/seed1" in jobs[-1].command


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("budgets: [3min, 1h]", "budgets: [3min, 2h]", "systems.plain.budgets: no budget '2h'"),
        ("budgets: [3min, 1h]", "budgets: [3min]", "init_encoder: no system 'plain_1h'"),
        (", budgets: [1h]", "", "against compares a point of a curve"),
    ],
)
def test_bad_budgets_are_named(old, new, message, tmp_path, capsys):
    path = tmp_path / "systems.yaml"
    path.write_text(BUDGETS.replace(old, new))
    assert main(["matrix", "--systems", str(path), "--stage", "5"]) == 1
    assert message in capsys.readouterr().err
