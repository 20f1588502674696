"""Bad input to `speechkit train` and `average`: one line, exit status 1 or 2, nothing half-written."""

from __future__ import annotations

import json
import shutil

import pytest
from factories import write_table
from tiny_training import World, make_dump, make_tokenizer

from speechkit.bin.__main__ import main
from speechkit.train.checkpoint import checkpoints


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path, utterances=8, dev=3)


def fails(capsys, arguments, *parts, status=1):
    """Runs a verb; its last line must hold all parts."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == status
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"speechkit {arguments[0]}: error: "), last
    for part in parts:
        assert str(part) in last, last


def train(world, *more, **changes):
    return ["train", *world.arguments(**changes), *more]


def untouched(world):
    """No checkpoint, no rows, no temporary folder."""
    exp = world.folder / "exp"
    assert not checkpoints(exp) and not list(exp.glob(".*.tmp")) and not (exp / "metrics.jsonl").exists()


def set_text(folder, change):
    lines = [line.partition(" ") for line in (folder / "text").read_text().splitlines()]
    write_table(folder / "text", {utterance: change(i, text) for i, (utterance, _, text) in enumerate(lines)})


def test_missing_options(capsys):
    fails(capsys, ["train", "--exp", "x"], "--train is required", status=2)
    fails(capsys, ["train", "--exp", "x", "--train", "a"], "--dev is required", status=2)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--epx", "x"])
    assert stop.value.code == 2


def test_missing_configuration_file(world, capsys):
    fails(capsys, train(world, "--config", "none.yaml"), "none.yaml: no such configuration file")
    untouched(world)


def test_missing_data_directory(world, capsys):
    shutil.rmtree(world.train)
    fails(capsys, train(world), world.train)
    untouched(world)


@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2num_samples"])
def test_missing_table(world, capsys, name):
    (world.train / name).unlink()
    fails(capsys, train(world), name)
    untouched(world)


def test_missing_tokenizer(world, capsys):
    world.tokenizer = world.folder / "none"
    fails(capsys, train(world), world.tokenizer)
    untouched(world)


def test_missing_statistics(world, capsys):
    fails(capsys, train(world, "--cmvn", world.folder / "cmvn.json"), "cmvn.json: no such file")
    untouched(world)


def test_broken_statistics(world, capsys):
    file = world.folder / "cmvn.json"
    file.write_text('{"mean": [1,')
    fails(capsys, train(world, "--cmvn", file), f"{file}:1: not JSON")
    untouched(world)


@pytest.mark.parametrize("content", ["[]", "{}", '{"mean": 1, "std": [1]}'])
def test_statistics_that_are_none(world, capsys, content):
    file = world.folder / "cmvn.json"
    file.write_text(content)
    fails(capsys, train(world, "--cmvn", file), f"{file}: no CMVN statistics")
    untouched(world)


def features(folder, *options):
    assert main(["features", "--data", str(folder), "--jobs", "1", *options]) == 0


def test_dumped_features_of_another_configuration(world, capsys):
    features(world.train, "low_freq=100")
    place = world.train / "features.json"
    fails(capsys, train(world), f"{place}: of other features", "low_freq: 100.0 -> 20.0")
    untouched(world)
    assert world.run(features__low_freq=100) == 0


def test_dumped_dev_features_of_another_configuration(world, capsys):
    features(world.dev, "window=hamming")
    fails(capsys, train(world), f"{world.dev / 'features.json'}: of other features", "window")
    untouched(world)


def test_features_normalised_by_speaker(world, capsys):
    features(world.train, "--speaker-cmvn", "true")
    fails(capsys, train(world), f"{world.train / 'features.json'}: of features normalised by speaker")
    untouched(world)


def test_statistics_of_another_configuration(world, capsys):
    features(world.train, "--cmvn", "true", "--dump", "false", "low_freq=100")
    place = world.train / "cmvn.json"
    fails(capsys, train(world, "--cmvn", place), f"{place}: of other features", "low_freq: 100.0 -> 20.0")
    untouched(world)
    assert main([*train(world, "--cmvn", str(place)), "features.low_freq=100"]) == 0


def test_features_of_another_dimension_than_the_model_takes(world, capsys):
    arguments = train(world, "model={name: ctc}", features__bins=40)
    fails(capsys, [a for a in arguments if a != "model.name=tiny"], "fbank makes 40 dimensions", "takes 80")
    untouched(world)


def test_audio_of_another_rate_than_the_models(world, capsys):
    fails(capsys, train(world, features__rate=8000), "wrong sample rate: 16000 Hz where 8000 Hz")
    untouched(world)


def test_an_experiment_folder_that_is_a_file(world, capsys):
    (world.folder / "exp").write_text("mine")
    fails(capsys, train(world), f"{world.folder / 'exp'}: File exists")
    assert (world.folder / "exp").read_text() == "mine"


def test_a_set_given_twice(world, capsys):
    command = train(world)
    command.insert(command.index("--dev"), str(world.train))
    fails(capsys, command, "utterance s00-000 is in both")
    untouched(world)


def test_text_outside_the_vocabulary_in_training(world, capsys):
    set_text(world.train, lambda i, text: "ДА" if i == 2 else text)
    fails(
        capsys, train(world), "1 of 8 utterances dropped", "no token in the vocabulary", "ledger_train.jsonl"
    )
    fates = [json.loads(line) for line in (world.folder / "exp/ledger_train.jsonl").read_text().splitlines()]
    assert len(fates) == 8 and [f["reason"] for f in fates if not f["kept"]] == ["no token in the vocabulary"]
    untouched(world)


def test_text_outside_the_vocabulary_in_dev_whatever_the_limit(world, capsys):
    set_text(world.dev, lambda i, text: "ДА" if i == 1 else text)
    fails(
        capsys, train(world, data__max_dropped=1.0), "dev set", "no token in the vocabulary", "nothing may be"
    )
    untouched(world)


def test_more_tokens_than_frames_in_training(world, capsys):
    set_text(world.train, lambda i, text: "seven " * 40 if i == 0 else text)
    fails(capsys, train(world), "1 of 8 utterances dropped", "more tokens than frames", "ledger_train.jsonl")
    untouched(world)
    assert world.run(data__max_dropped=0.2, loop__max_updates=2) == 0  # allowed: left out, counted, listed
    fates = [json.loads(line) for line in (world.folder / "exp/ledger_train.jsonl").read_text().splitlines()]
    (dropped,) = [fate for fate in fates if not fate["kept"]]
    assert dropped["reason"] == "more tokens than frames" and "tokens" in dropped["detail"]


def test_more_tokens_than_frames_in_dev(world, capsys):
    set_text(world.dev, lambda i, text: "seven " * 40 if i == 0 else text)
    fails(capsys, train(world), "dev set", "more tokens than frames", "ledger_dev.jsonl")
    untouched(world)


def test_more_tokens_than_frames_only_at_the_fastest_speed(world, capsys):
    """0.5 s are 48 frames, 12 after reduction; at speed 1.1 they are 43 and 10."""
    set_text(world.train, lambda i, text: "abcdefghijkl"[: 11 if i == 0 else 2])
    make_tokenizer(world.tokenizer, ["abcdefghijkl one two three four five six seven eight nine zero"])
    assert world.run("slow", loop__max_updates=1) == 0
    fails(capsys, train(world, augment__speeds="[0.9,1.0,1.1]"), "more tokens than frames", "s00-000")


def test_everything_too_long(world, capsys):
    fails(
        capsys,
        train(world, plan__max_seconds=0.1),
        "8 of 8 utterances dropped",
        "longer than plan.max_seconds",
    )
    fails(capsys, train(world, plan__max_seconds=0.1, data__max_dropped=1.0), "no usable utterance")
    untouched(world)


def test_fewer_utterances_than_micro_batches(world, capsys):
    fails(capsys, train(world, plan__micro_batches=50), "plan.micro_batches=50, but the data set has only 8")
    untouched(world)


def test_micro_batches_that_cannot_be_dealt(world, capsys, monkeypatch):
    from speechkit.train import distributed

    ranks = distributed.Ranks(0, 2)
    monkeypatch.setattr(distributed, "start", lambda timeout: ranks)
    fails(
        capsys,
        train(world, plan__micro_batches=3),
        "plan.micro_batches=3 must be a multiple of the 2 processes",
    )
    untouched(world)


def test_a_checkpoint_of_another_configuration(world, capsys):
    assert world.run(loop__max_updates=2) == 0
    before = {p: p.stat().st_mtime_ns for p in (world.folder / "exp").rglob("*") if p.is_file()}
    changed = train(world, loop__max_updates=2, model__width=32, optim__lr=0.5)
    fails(
        capsys,
        changed,
        "step_2: a checkpoint of another configuration",
        "model.width: 16 -> 32",
        "optim.lr: 0.01 -> 0.5",
    )
    assert before == {p: p.stat().st_mtime_ns for p in (world.folder / "exp").rglob("*") if p.is_file()}


def test_a_checkpoint_of_another_model(world, capsys):
    assert world.run(loop__max_updates=2) == 0
    fails(
        capsys,
        train(world, loop__max_updates=2, model__name="ctc"),
        "another configuration",
        "model.name: 'tiny' -> 'ctc'",
    )


def test_a_checkpoint_of_other_data(world, capsys):
    assert world.run(loop__max_updates=2) == 0
    set_text(world.train, lambda i, text: "nine" if i == 0 else text)
    fails(capsys, train(world, loop__max_updates=4), "step_2: the train data changed since this checkpoint")
    make_dump(world.folder / "dev2", 3, seed=9, prefix="e")
    world.train, world.dev = make_dump(world.folder / "train", 8), world.folder / "dev2"
    fails(capsys, train(world, loop__max_updates=4), "step_2: the dev data changed since this checkpoint")


def test_a_checkpoint_of_another_tokenizer(world, capsys):
    assert world.run(loop__max_updates=2) == 0
    make_tokenizer(world.tokenizer, ["one two three four five six seven eight nine zero q"])
    fails(capsys, train(world, loop__max_updates=4), "the tokenizer or the CMVN statistics changed")


@pytest.mark.parametrize("name", ["state.pt", "model.safetensors", "config.yaml"])
def test_a_damaged_checkpoint(world, capsys, name):
    assert world.run(loop__max_updates=2) == 0
    path = world.folder / "exp/step_2" / name
    path.write_bytes(path.read_bytes()[: -max(8, path.stat().st_size // 3)] + b"\nseed: [")
    fails(capsys, train(world, loop__max_updates=4), path)


def test_a_second_run_in_the_same_folder(world, capsys):
    import fcntl

    (world.folder / "exp").mkdir()
    with open(world.folder / "exp/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fails(capsys, train(world), "another process is training here")
    untouched(world)


def test_patterns_that_match_nothing(world, capsys):
    fails(capsys, train(world, freeze="[{pattern: encoder.*}]"), "freeze: no parameter matches 'encoder.*'")
    fails(
        capsys,
        train(world, optim__groups="[{pattern: x}]"),
        "optim.groups: no parameter is left for the pattern 'x'",
    )
    untouched(world)


def test_a_metric_that_is_not_measured(world, capsys):
    fails(
        capsys,
        train(world, validation__metric="bleu", validation__every=2),
        "validation.metric=bleu is not measured",
    )
    assert not checkpoints(world.folder / "exp") and not (world.folder / "exp" / "metrics.jsonl").exists()


def test_initial_weights_that_do_not_fit(world, capsys):
    assert world.run("first", loop__max_updates=2, model__width=8) == 0
    rule = f"{world.folder / 'first/final'}:hidden.:hidden."
    fails(
        capsys,
        train(world, init__params=f"['{rule}']"),
        "hidden.weight: (8, 320) for (16, 320) (shape)",
        "init.allow",
    )
    fails(capsys, train(world, init__params="['nowhere:a:b']"), "nowhere: no such file")
    untouched(world)


def test_averaging_nothing_or_everything(world, capsys, tmp_path):
    output = tmp_path / "mean"
    fails(capsys, ["average", "--output", output], "give either --checkpoints, or --exp", status=2)
    fails(capsys, ["average", "--output", output, "--exp", tmp_path, "--last", 0], "0 checkpoints", status=2)
    fails(
        capsys,
        ["average", "--output", output, "--exp", tmp_path / "none", "--last", 2],
        "no step_N checkpoint",
    )
    fails(capsys, ["average", "--output", output, "--checkpoints", tmp_path / "none"], "none")
    assert not output.exists()


def test_averaging_from_the_command_line(world, capsys, tmp_path):
    assert world.run(checkpoints__average="last") == 0
    exp, output = world.folder / "exp", tmp_path / "mean"
    assert main(["average", "--exp", str(exp), "--last", "2", "--output", str(output)]) == 0
    assert "mean of 2 checkpoints" in capsys.readouterr().err
    import torch
    from tiny_training import weights

    a, b, mean, final = (weights(f) for f in (exp / "step_8", exp / "step_12", output, exp / "final"))
    for name in mean:
        torch.testing.assert_close(mean[name], (a[name].double() + b[name].double()).div(2).float())
        assert torch.equal(mean[name], final[name])
    assert main(["average", "--exp", str(exp), "--last", "2", "--output", str(output)]) == 0
    assert "is up to date" in capsys.readouterr().err
    assert main(["average", "--exp", str(exp), "--best", "1", "--output", str(output)]) == 0
    assert weights(output).keys() == a.keys()
