"""Contracts about bad data and bad numbers (R11, R13, R16)."""

from __future__ import annotations

import json
import os

import pytest
import tiny_training
import torch
from tiny_training import World, on_ranks, rows, weights


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def truncate(folder):
    """Cuts the first recording of a data directory in half; gives its utterance."""
    utterance, path = (folder / "wav.scp").read_text().splitlines()[0].split(maxsplit=1)
    with open(path, "rb+") as file:
        file.truncate(os.path.getsize(path) // 2)
    return utterance


def test_r11_bad_samples_are_counted_listed_and_limited_in_training(world, capsys):
    utterance = truncate(world.train)
    assert world.run() == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 12 training utterances cannot be read, more than data.max_bad=0.005" in error
    assert utterance in error and "bad_samples.jsonl" in error
    assert not (world.folder / "exp/final").exists()

    assert world.run("patient", data__max_bad=0.1) == 0
    listed = [
        json.loads(line) for line in (world.folder / "patient/bad_samples.jsonl").read_text().splitlines()
    ]
    assert {row["utterance"] for row in listed} == {utterance} and all(row["reason"] for row in listed)
    epochs = len(rows(world.folder / "patient", "epoch"))
    assert epochs - 1 <= len(listed) <= epochs  # once in every epoch
    assert max(row["bad"] for row in rows(world.folder / "patient", "train")) == 1


def test_r11_a_bad_dev_sample_always_ends_the_run(world, capsys):
    utterance = truncate(world.dev)
    assert world.run(data__max_bad=1.0, data__max_dropped=1.0) == 1
    assert f"dev utterance {utterance}: " in capsys.readouterr().err.splitlines()[-1]


def test_r13_a_step_that_is_not_finite_is_skipped_and_blamed(world, capsys):
    assert world.run(model__misbehave="nan:4-7", checkpoints__every=1, checkpoints__keep_last=20) == 0
    exp = world.folder / "exp"
    listed = [json.loads(line) for line in (exp / "nonfinite.jsonl").read_text().splitlines()]
    skipped = [entry["update"] for entry in listed]
    assert 1 <= len(skipped) <= 3 and set(skipped) <= {5, 6, 7, 8}
    for n in (5, 6, 7, 8, 9):
        before, after = weights(exp / f"step_{n - 1}"), weights(exp / f"step_{n}")
        assert (n in skipped) == all(torch.equal(before[name], after[name]) for name in before)
    for entry in listed:
        wrong = [utterance for utterance in entry["ids"] if utterance.endswith("000")]
        assert wrong and [blamed["utterance"] for blamed in entry["blamed"]] == wrong
    counted = {row["update"]: row["skipped"] for row in rows(exp, "train")}
    assert counted[4] == 0 and counted[12] == len(skipped)
    error = capsys.readouterr().err
    assert (
        f"update {skipped[0] - 1}: loss or gradient not finite, skipped ({listed[0]['ids'][0][:2]}" in error
    )


def test_r13_all_ranks_skip_together(world, tmp_path):
    """Only rank 1 sees the NaN."""
    old = tiny_training.Tiny.misbehave

    def on_rank_1(self, loss, update, batch):
        return loss * float("nan") if os.environ["RANK"] == "1" and update == 5 else loss

    tiny_training.Tiny.misbehave = on_rank_1
    options = {"plan__micro_batches": 2, "checkpoints__every": 1, "checkpoints__keep_last": 20}
    try:
        statuses = on_ranks(2, lambda: world.run("ranks", **options), tmp_path / "log")
    finally:
        tiny_training.Tiny.misbehave = old
    assert statuses == [0, 0], (tmp_path / "log.0").read_text()
    exp = world.folder / "ranks"
    before, after = weights(exp / "step_5"), weights(exp / "step_6")
    assert all(torch.equal(before[name], after[name]) for name in before)
    listed = [json.loads(line) for line in (exp / "nonfinite.jsonl").read_text().splitlines()]
    assert {(row["update"], row["rank"]) for row in listed} == {(6, 0), (6, 1)}
    assert {row["rank"]: bool(row["blamed"]) for row in listed} == {0: False, 1: True}


def test_r13_too_many_in_a_row_end_the_run(world, capsys):
    assert world.run(model__misbehave="nan:4-400", loop__max_nonfinite=2, plan__seconds=60) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "2 updates in a row were not finite (loop.max_nonfinite)" in error and "nonfinite.jsonl" in error
    assert rows(world.folder / "exp", "train")[-1]["update"] == 5


@pytest.mark.parametrize(
    "override, message",
    [
        ("optim.lrr=1e-3", "optim.lrr: unknown key; did you mean 'lr'?"),
        ("optim.lr=fast", "optim.lr: expected a number, got 'fast'"),
        ("loop.max_updates=0", "max_updates=0 must be in [1, inf]"),
        ("schedule.name=cosine", "no kind 'cosine'; known: constant, noam, tri_stage, warmup_linear"),
        ("seed=", "no value"),
        ("loop.precision=fp16", "'fp16' is not one of auto, fp32, bf16"),
    ],
)
def test_r16_a_wrong_configuration_names_the_key(world, capsys, override, message):
    from speechkit.bin.__main__ import main

    assert main(["train", *world.arguments(), override]) == 1
    assert message in capsys.readouterr().err
    assert not (world.folder / "exp").exists()


def test_r16_duplicate_and_unknown_keys_of_a_file_are_named_with_their_line(world, capsys):
    from speechkit.bin.__main__ import main

    file = world.folder / "x.yaml"
    file.write_text("seed: 1\nplan:\n  second: 20\n")
    assert main(["train", "--config", str(file), *world.arguments()]) == 1
    assert f"{file}:3: plan.second: unknown key; did you mean 'seconds'?" in capsys.readouterr().err
    file.write_text("seed: 1\nplan:\n  seconds: 20\n  seconds: 30\n")
    assert main(["train", "--config", str(file), *world.arguments()]) == 1
    assert f"{file}:4: duplicate key 'plan.seconds'" in capsys.readouterr().err
