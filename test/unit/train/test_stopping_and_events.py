"""Early stopping, TensorBoard events and the progress bar of a whole training."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from pathlib import Path

import pytest
from tiny_training import World, fork, rows, wait


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"), utterances=8, dev=3)


def test_training_stops_when_validations_are_no_better(world, capsys):
    options = {"optim__lr": 0, "validation__every": 1, "validation__patience": 2}  # nothing is learned
    assert world.run("patient", **options) == 0
    assert max(row["update"] for row in rows(world.folder / "patient", "train")) == 3
    assert "no better wer in 2 validations" in capsys.readouterr().err
    assert (world.folder / "patient" / "final" / "model.safetensors").exists()


def test_five_dev_utterances_are_decoded_at_each_validation_always_the_same(tmp_path):
    world = World(tmp_path, utterances=8, dev=9)
    assert world.run() == 0
    ids = {line.split()[0] for line in (world.dev / "text").read_text().splitlines()}
    text = (tmp_path / "exp" / "samples.txt").read_text()
    blocks = [block for block in text.split("update ")[1:]]
    found = [sorted(name for name in ids if name in block) for block in blocks]
    assert len(found) >= 3 and len(found[0]) == 5 and all(names == found[0] for names in found)


def test_training_in_bf16_comes_close_to_fp32(world):
    for precision in ("bf16", "fp32"):
        assert world.run(precision, loop__precision=precision, model__dropout=0) == 0
    losses = {p: [row["loss"] for row in rows(world.folder / p, "dev")] for p in ("bf16", "fp32")}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05) and losses["bf16"] != losses["fp32"]


@pytest.mark.parametrize("metric", ["seconds", "wre"])
def test_a_metric_that_is_not_measured_is_named_before_training(world, capsys, metric):
    assert world.run(f"metric_{metric}", validation__metric=metric) == 1
    assert f"validation.metric={metric} is not measured" in capsys.readouterr().err
    assert not list((world.folder / f"metric_{metric}").glob("step_*"))


def test_training_on_the_dev_set_is_said(world, capsys):
    from speechkit.bin.__main__ import main

    arguments = world.arguments("same")
    arguments[arguments.index("--dev") + 1] = str(world.train)
    assert main(["train", *arguments]) in (0, 1)
    assert "is trained on and validated on" in capsys.readouterr().err


def test_tensorboard_has_the_values_of_the_metrics(world):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert world.run("events", loop__tensorboard="true") == 0
    events = EventAccumulator(str(world.folder / "events" / "tensorboard")).Reload()
    for kind, name in (("train", "loss"), ("train", "lr"), ("dev", "wer")):
        found = {event.step: event.value for event in events.Scalars(f"{kind}/{name}")}
        wanted = {row["update"]: row[name] for row in rows(world.folder / "events", kind)}
        assert found == pytest.approx(wanted)


def test_a_terminal_gets_a_progress_bar(world):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))  # rows and columns
    pid = fork(lambda: world.run("bar"), Path(os.ttyname(theirs)))
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # how Linux reports that nobody holds the terminal any more
        pass
    os.close(ours)
    assert wait(pid) == 0
    assert b"| 12/12 [" in said and b"finished: 12 updates made" in said
