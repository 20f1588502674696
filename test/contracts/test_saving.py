"""Contracts about checkpoints on disk (R3, R4, R5, R15, R17)."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_training import World, fork, rows, wait, weights

from speechkit.errors import InputError
from speechkit.train import checkpoint
from speechkit.train.state import random_state, set_random_state

FIXTURE = Path(__file__).parent.parent / "fixtures/checkpoint_v1"


class NoAssets:
    def save(self, folder):
        (folder / "note").write_text("x")


@dataclass
class Settings:
    seed: int = 1


def save(folder, update, size=50_000):
    """A checkpoint whose content tells which update it is of."""
    state = {"a": torch.full((size,), float(update)), "b": torch.full((7, 3), float(update))}
    training = {"update": update, "moments": [torch.full((size,), float(update))] * 2}
    checkpoint.save_checkpoint(folder, state, Settings(), NoAssets(), training=training)


def check(folder):
    update = int(folder.name[5:])
    values, state = weights(folder), checkpoint.load_state(folder)
    assert state["update"] == update and (values["a"] == update).all() and (values["b"] == update).all()
    assert (folder / "config.yaml").exists() and (folder / "assets/note").exists()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)


def test_r3_killed_while_saving_there_is_always_a_loadable_state(tmp_path):
    def save_on(first):
        for update in range(first, first + 1000):
            save(tmp_path / f"step_{update}", update)
            checkpoint.prune(tmp_path, [update, update - 1])

    draw, torn, newest = random.Random(0), 0, 0
    for _ in range(50):
        pid = fork(lambda begin=newest + 1: save_on(begin))
        wait_for(lambda past=newest: any(int(p.name[5:]) > past for p in tmp_path.glob("step_*")))
        time.sleep(draw.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL
        torn += bool(list(tmp_path.glob(".step_*")))
        found = checkpoint.checkpoints(tmp_path)
        for _, folder in found:
            check(folder)
        assert not found or found[-1][0] >= newest
        newest = found[-1][0] if found else newest
    assert newest > 10 and torn > 10  # the kills hit the middle of saves
    checkpoint.remove_leftovers(tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.fixture(params=["simulated", "small disk"])
def full_disk(request, tmp_path, monkeypatch):
    """A folder that holds one small checkpoint and no second, larger one."""
    monkeypatch.setattr(checkpoint, "_check_space", lambda folder, needed: None)
    if request.param == "small disk":
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)
        return

    class Full:
        def __init__(self, file):
            self.file, self.room = file, 300_000

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

    def limited(path, mode="r", **options):
        file = open(path, mode, **options)
        return Full(file) if str(path).endswith("state.pt") and "w" in mode else file

    monkeypatch.setattr(checkpoint, "open", limited, raising=False)
    yield tmp_path


def test_r4_a_full_disk_leaves_the_old_state_and_says_so(full_disk):
    save(full_disk / "step_1", 1, size=10_000)
    with pytest.raises(InputError, match=r"step_2: no space left on the disk; free some and run the same"):
        save(full_disk / "step_2", 2, size=300_000)
    check(full_disk / "step_1")
    assert [folder.name for _, folder in checkpoint.checkpoints(full_disk)] == ["step_1"]
    assert not list(full_disk.glob(".*")), "nothing half-written remains"


def test_r4_a_disk_that_fills_in_training_ends_the_command_with_one_line(tmp_path, monkeypatch, capsys):
    world = World(tmp_path)
    assert world.run(loop__max_updates=4, schedule__name="constant") == 0
    kept = weights(tmp_path / "exp/step_4")

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    capsys.readouterr()
    assert world.run(loop__max_updates=8, schedule__name="constant") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("speechkit train: error: ") and "step_8: no space left on the disk" in error
    assert not list((tmp_path / "exp").glob(".step*")) and not (tmp_path / "exp/step_8").exists()
    monkeypatch.undo()
    assert all(torch.equal(kept[name], value) for name, value in weights(tmp_path / "exp/step_4").items())
    assert world.run(loop__max_updates=8, schedule__name="constant") == 0


def test_r5_a_checkpoint_holds_the_complete_state(tmp_path):
    world = World(tmp_path)
    assert world.run(ema__decay=0.9, augment__speeds="[0.9,1.0,1.1]") == 0
    folder = tmp_path / "exp/step_8"
    state = checkpoint.load_state(folder)  # weights_only=True
    progress = state["progress"]
    assert progress["update"] == 8 and progress["validated"] == 8 and progress["epoch"] == 1
    assert [entry[-1] for entry in progress["best"]] and progress["waited"] in (0, 1)
    assert {"update", "epoch", "best", "waited", "skipped", "bad", "window"} <= progress.keys()
    assert set(state["random"]) == {"torch", "cuda", "python", "numpy"}
    moments = state["optimizer"]["state"]
    assert len(moments) == 6 and all(int(m["step"]) == 8 for m in moments.values())
    assert state["plan_starts"][0] == 0 and len(state["plan_starts"]) >= 2
    assert set(state["inputs"]) == {"train", "dev", "assets"}
    facts = json.loads((folder / "run.json").read_text())
    assert (
        facts["config_hash"]
        and facts["data_hash"]
        and facts["environment"]["torch"] == str(torch.__version__)
    )
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {
        "model.safetensors",
        "ema.safetensors",
        "state.pt",
        "config.yaml",
        "assets/tokenizer/tokens.txt",
    } <= names


def test_r5_random_states_come_back(tmp_path):
    def draw():
        return torch.rand(3).tolist(), random.random(), np.random.rand(2).tolist(), random.gauss(0, 1)

    random.gauss(0, 1)  # leaves a second value waiting
    np.random.randn()
    torch.save(random_state(), tmp_path / "r.pt")
    first = draw()
    assert draw() != first
    set_random_state(torch.load(tmp_path / "r.pt", weights_only=True))
    assert draw() == first


def test_r5_ema_and_optimiser_survive_a_stop(tmp_path):
    world = World(tmp_path)
    options = {"ema__decay": 0.9, "optim__weight_decay": 0.1}
    assert world.run("a", **options) == 0
    assert world.run("b", model__misbehave="SIGTERM:6", **options) == 75
    assert world.run("b", model__misbehave="SIGTERM:6", **options) == 0
    for name in ("model", "ema"):
        one, other = (checkpoint.load_weights(tmp_path / e / f"step_12/{name}.safetensors") for e in "ab")
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(weights(tmp_path / "a/step_12")["head.weight"], one["head.weight"])


def test_r15_a_checkpoint_of_format_1_loads():
    """Weights, configuration, assets, optimiser and progress of a checkpoint saved by the first version."""
    expected = json.loads((FIXTURE / "expected.json").read_text())
    model, config, assets = checkpoint.load_model(FIXTURE / "step_3")
    assert config.seed == expected["seed"] and assets.tokenizer.encode("one") == expected["one"]
    from speechkit.data.batch import Batch, Padded

    grid = torch.arange(2 * 40 * 8, dtype=torch.float32).reshape(2, 40, 8)
    batch = Batch(
        ["a", "b"], torch.tensor([1, 2]), None, {"features": Padded(grid.sin(), torch.tensor([40, 31]))}
    )
    with torch.no_grad():
        log_probs, lengths = model.encode(batch)["ctc"]
    assert lengths.tolist() == expected["lengths"]
    torch.testing.assert_close(log_probs[0, :, :4], torch.tensor(expected["log_probs"]), atol=1e-4, rtol=0)
    state = checkpoint.load_state(FIXTURE / "step_3")
    from speechkit.train import optim
    from speechkit.train.state import Progress

    optim.build(config.optim, model).load_state_dict(state["optimizer"])
    assert Progress.from_dict(state["progress"]).update == 3


def test_r17_too_little_space_is_found_before_writing(tmp_path, monkeypatch):
    save(tmp_path / "step_1", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=600_000))
    with pytest.raises(
        InputError, match=r"step_2: a checkpoint needs 0\.6 MB and 0\.6 MB are free; free some"
    ):
        save(tmp_path / "step_2", 2)
    assert [folder.name for _, folder in checkpoint.checkpoints(tmp_path)] == ["step_1"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=700_000))
    save(tmp_path / "step_2", 2)


def test_r17_the_last_and_the_best_checkpoints_are_kept(tmp_path):
    world = World(tmp_path)
    options = {"checkpoints__keep_last": 2, "checkpoints__keep_best": 1, "checkpoints__average": "last"}
    assert world.run(validation__every=3, checkpoints__average_count=1, optim__lr=0.03, **options) == 0
    kept = [update for update, _ in checkpoint.checkpoints(tmp_path / "exp")]
    dev = {row["update"]: (row["wer"], row["loss"]) for row in rows(tmp_path / "exp", "dev")}
    assert set(dev) == {3, 6, 9, 12}
    assert kept == sorted({9, 12, min(dev, key=dev.get)})
