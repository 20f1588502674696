"""Contracts about stopping, dying and starting again (R1, R2, R9, R10, R18, SIGKILL at any moment)."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pytest
import tiny_training
import torch
from tiny_training import World, fork, on_ranks, rows, wait, weights

from speechkit.bin.__main__ import main
from speechkit.train import distributed

STOPPED = 75


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world):
    """Final state and rows of a run that nothing happens to."""
    assert world.run("undisturbed") == 0
    return world.folder / "undisturbed"


def assert_same(one, other):
    """Both runs ended in the same bits and wrote the same rows."""
    for folder in ("step_12", "final"):
        a, b = weights(one / folder), weights(other / folder)
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), f"{folder} {name}"
    assert rows(one) == rows(other)
    assert (one / "samples.txt").read_text() == (other / "samples.txt").read_text()


def test_r1_the_same_command_again_resumes_and_then_does_nothing(world, undisturbed, capfd):
    kinds = [row["kind"] for row in rows(undisturbed)]
    assert kinds.count("train") == 12 and kinds.count("dev") == 3 and kinds.count("final") == 1
    assert world.run("twice", model__misbehave="SIGTERM:5") == STOPPED
    assert not (world.folder / "twice/final").exists()
    assert world.run("twice", model__misbehave="SIGTERM:5") == 0
    assert "resuming from" in capfd.readouterr().err
    assert_same(undisturbed, world.folder / "twice")
    before = {p: p.stat().st_mtime_ns for p in (world.folder / "twice").rglob("*.safetensors")}
    assert world.run("twice", model__misbehave="SIGTERM:5") == 0
    assert "twice/final is up to date" in capfd.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in (world.folder / "twice").rglob("*.safetensors")}


def test_r1_the_command_of_a_finished_run_does_not_load_it(world, capfd, monkeypatch):
    """A run that is over is left alone at once; one whose data or options changed is looked at."""
    command = ["train", *world.arguments("seen")]
    assert main(command) == 0
    saved = {p: p.stat().st_mtime_ns for p in (world.folder / "seen").rglob("*.safetensors")}
    monkeypatch.setitem(sys.modules, "speechkit.train.pretrained", None)  # importing it now fails
    assert main(command) == 0
    assert "seen/final is up to date (another --exp trains anew)" in capfd.readouterr().err
    monkeypatch.undo()
    assert main([*command, "loop.log_every=2"]) == 0
    assert "nothing to do" in capfd.readouterr().err
    assert saved == {p: p.stat().st_mtime_ns for p in (world.folder / "seen").rglob("*.safetensors")}
    table = world.folder / world.train / "text"
    before = table.read_text()
    try:
        table.write_text(before + "x y\n")
        assert main(command) == 1
    finally:
        table.write_text(before)


def test_r1_more_updates_can_be_asked_for_later(world):
    assert world.run("longer", schedule__name="constant") == 0
    assert world.run("longer", schedule__name="constant", loop__max_updates=16) == 0
    assert world.run("at_once", schedule__name="constant", loop__max_updates=16) == 0
    longer, at_once = (weights(world.folder / e / "step_16") for e in ("longer", "at_once"))
    assert all(torch.equal(longer[name], at_once[name]) for name in longer)


R2 = {"plan__micro_batches": 2, "model__misbehave": "die:6"}


def test_r2_after_a_killed_rank_both_start_again_with_the_same_metrics(world, tmp_path, monkeypatch):
    """What torchrun does: when a rank dies, all are ended and all are started again."""
    monkeypatch.setenv("TINY_MARKER", str(tmp_path / "died"))
    rank_0, rank_1 = on_ranks(2, lambda: world.run("killed", **R2), tmp_path / "log")
    assert rank_1 == -signal.SIGKILL and rank_0 not in (0, STOPPED)
    assert on_ranks(2, lambda: world.run("killed", **R2), tmp_path / "log") == [0, 0]
    assert "resuming from" in (tmp_path / "log.0").read_text()
    assert on_ranks(2, lambda: world.run("calm", **R2), tmp_path / "log") == [0, 0]
    assert rows(world.folder / "killed") == rows(world.folder / "calm")


@pytest.mark.slow
def test_r2_torchrun_restarts_after_a_killed_rank_with_the_same_metrics(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_MARKER", str(tmp_path / "died"))
    process = world.start("killed", ranks=2, restarts=1, **R2)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert (tmp_path / "died").exists() and "resuming from" in output
    assert on_ranks(2, lambda: world.run("calm", **R2), tmp_path / "log") == [0, 0]
    assert rows(world.folder / "killed") == rows(world.folder / "calm")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_r9_a_signal_saves_within_one_step_and_exits_with_75(world, undisturbed, name):
    exp = world.folder / name
    assert world.run(name, model__misbehave=f"{name}:5") == STOPPED
    assert (exp / "step_6/state.pt").exists() and rows(exp, "train")[-1]["update"] == 6
    assert world.run(name, model__misbehave=f"{name}:5") == 0
    assert_same(undisturbed, exp)


def test_r9_all_ranks_stop_after_the_same_update(world, tmp_path):
    """Only rank 1 gets the signal."""

    def run():
        return world.run("one_signal", plan__micro_batches=2, model__misbehave="SIGTERM:5")

    old = tiny_training.Tiny.misbehave

    def only_rank_1(self, loss, update, batch):
        return old(self, loss, update, batch) if os.environ["RANK"] == "1" else loss

    tiny_training.Tiny.misbehave = only_rank_1
    try:
        statuses = on_ranks(2, run, tmp_path / "log")
    finally:
        tiny_training.Tiny.misbehave = old
    assert statuses == [STOPPED, STOPPED], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    assert newest(world.folder / "one_signal") in (6, 7)


def test_r10_a_second_ctrl_c_stops_at_once(world, tmp_path):
    log = tmp_path / "log"
    status = wait(fork(lambda: world.run("hard", model__misbehave="SIGINT+SIGINT:3"), log))
    assert status == 130
    assert not list((world.folder / "hard").glob("step_*"))
    assert "stopped at once" in log.read_text()


def test_r18_a_hang_ends_with_the_stack_of_the_process(world, tmp_path):
    log, begun = tmp_path / "log", time.monotonic()
    assert wait(fork(lambda: world.run("hang", model__misbehave="sleep:2", loop__timeout=1.5), log)) == 1
    assert time.monotonic() - begun < 30
    assert "in misbehave" in log.read_text() and "Timeout" in log.read_text()


def test_r18_ranks_do_not_wait_for_ever_for_a_silent_one(world, tmp_path):
    def run():
        if os.environ["RANK"] == "0":
            return world.run("silent", plan__micro_batches=2, loop__timeout=3)
        distributed.start(60)
        time.sleep(8)
        return 0

    assert on_ranks(2, run, tmp_path / "log")[0] not in (0, STOPPED)
    assert (
        "Timeout" in (tmp_path / "log.0").read_text() and "in all_reduce" in (tmp_path / "log.0").read_text()
    )
    assert rows(world.folder / "silent", "train") == []


def newest(exp) -> int:
    return max([int(p.name[5:]) for p in exp.glob("step_*") if p.name[5:].isdigit()], default=0)


def test_killed_at_random_moments_the_result_is_the_same_to_the_last_bit(world, undisturbed, tmp_path):
    """Each time a few updates later, and a random moment after that."""
    draw, hits, exp = random.Random(1), 0, world.folder / "kills"
    for _ in range(5):
        goal = newest(exp) + draw.randint(1, 2)
        pid = fork(lambda: world.run("kills", checkpoints__every=1), tmp_path / "log")
        end = time.monotonic() + 60
        while newest(exp) < goal and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        hits += wait(pid) == -signal.SIGKILL
    assert hits >= 3 and newest(exp) < 12
    assert world.run("kills", checkpoints__every=1) == 0
    assert_same(undisturbed, exp)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_the_result_is_the_same_to_the_last_bit(tmp_path):
    """Whole processes, killed anywhere from the first import to the last save."""
    world = World(tmp_path, utterances=40)
    options = {"loop__max_updates": 60, "validation__every": 20, "checkpoints__every": 3}
    assert world.run("undisturbed", **options) == 0
    draw, hits = random.Random(3), 0
    for _ in range(20):
        process = world.start("kills", **options)
        time.sleep(draw.uniform(2.0, 8.0))
        process.kill()
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
    process = world.start("kills", **options)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert hits >= 3
    one, other = tmp_path / "undisturbed", tmp_path / "kills"
    for folder in ("step_60", "final"):
        a, b = weights(one / folder), weights(other / folder)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert rows(one) == rows(other)
