"""Checkpoint files: ties, damage, averaging, initial weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from speechkit.errors import InputError
from speechkit.train import checkpoint
from speechkit.train.initial import Config, load_initial


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).t())
        self.register_buffer("steps", torch.tensor(7))


@dataclass
class Settings:
    seed: int = 1


class NoAssets:
    def save(self, folder):
        pass


def test_tied_and_turned_tensors_are_stored_once_and_come_back(tmp_path):
    model = Tied()
    checkpoint.save_weights(tmp_path / "m.safetensors", model.state_dict())
    assert set(load_file(tmp_path / "m.safetensors")) == {"embedding.weight", "turned", "steps"}
    other = Tied()
    with torch.no_grad():
        other.turned.zero_()
    checkpoint.load_strictly(other, tmp_path / "m.safetensors")
    assert other.out.weight is other.embedding.weight
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match=r"m\.safetensors: no such file; is this a checkpoint folder"):
        checkpoint.load_weights(path)
    checkpoint.save_weights(path, Tied().state_dict())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"m\.safetensors: damaged weights"):
        checkpoint.load_weights(path)
    save_file({"a": torch.zeros(1)}, path, {"speechkit": "99"})
    with pytest.raises(InputError, match="written by a later version"):
        checkpoint.load_weights(path)
    save_file({"embedding.weight": torch.zeros(5, 4), "more": torch.zeros(1)}, path)
    with pytest.raises(InputError) as error:
        checkpoint.load_strictly(Tied(), path)
    for part in (
        "(5, 4) in the file, (5, 3) in the model",
        "more: not in the model",
        "turned: not in the file",
    ):
        assert part in str(error.value)


def test_a_damaged_state_is_refused_and_names_the_file(tmp_path):
    folder = tmp_path / "step_1"
    state = {"a": torch.zeros(3)}
    checkpoint.save_checkpoint(folder, state, Settings(), NoAssets(), training={"x": torch.zeros(1000)})
    data = (folder / "state.pt").read_bytes()
    for broken in (data[: len(data) // 2], b"", b"\0" * 100):
        (folder / "state.pt").write_bytes(broken)
        with pytest.raises(
            InputError, match=r"step_1/state\.pt: damaged .*; remove the folder to use an earlier"
        ):
            checkpoint.load_state(folder)
    (folder / "state.pt").unlink()
    with pytest.raises(InputError, match=r"state\.pt: no such file; only step_N folders can be resumed"):
        checkpoint.load_state(folder)


def test_state_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = tmp_path / "step_1"
    folder.mkdir()
    torch.save({"format": 1, "x": Evil()}, folder / "state.pt")
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load_state(folder)
    assert not (tmp_path / "ran").exists()


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    for value in (np.float64(1), tmp_path, {1, 2}, torch.__version__):
        with pytest.raises(TypeError, match="a checkpoint holds no"):
            training = {"deep": [{"x": value}]}
            checkpoint.save_checkpoint(tmp_path / "step_1", {}, Settings(), NoAssets(), training=training)
    assert not list(tmp_path.iterdir())


def test_averaging_is_the_mean_and_refuses_other_models(tmp_path):
    states = [
        {"w": torch.randn(4, 3), "half": torch.randn(3).bfloat16(), "n": torch.tensor(i)} for i in range(3)
    ]
    for i, state in enumerate(states):
        checkpoint.save_checkpoint(tmp_path / f"step_{i}", state, Settings(), NoAssets())
    folders = [tmp_path / f"step_{i}" for i in range(3)]
    mean = checkpoint.average(folders)
    torch.testing.assert_close(mean["w"], torch.stack([s["w"] for s in states]).double().mean(0).float())
    assert mean["half"].dtype == torch.bfloat16 and int(mean["n"]) == 2
    assert torch.equal(checkpoint.average(folders[:1])["w"], states[0]["w"])
    checkpoint.save_checkpoint(tmp_path / "step_9", {"w": torch.zeros(4, 2)}, Settings(), NoAssets())
    with pytest.raises(
        InputError, match=r"step_9/model\.safetensors: weights of another model than .*step_0"
    ):
        checkpoint.average([*folders, tmp_path / "step_9"])
    with pytest.raises(InputError, match="no checkpoints"):
        checkpoint.average([])


def test_averages_take_the_ema_where_there_is_one(tmp_path):
    ema = {"w": torch.ones(2)}
    checkpoint.save_checkpoint(tmp_path / "step_1", {"w": torch.zeros(2)}, Settings(), NoAssets(), ema=ema)
    assert checkpoint.average([tmp_path / "step_1"])["w"].tolist() == [1, 1]
    assert checkpoint.average([tmp_path / "step_1"], ema=False)["w"].tolist() == [0, 0]


def test_pruning_keeps_what_is_listed_and_clears_leftovers(tmp_path):
    for update in (1, 2, 10):
        checkpoint.save_checkpoint(tmp_path / f"step_{update}", {"w": torch.zeros(1)}, Settings(), NoAssets())
    (tmp_path / ".step_11.99.tmp").mkdir()
    (tmp_path / "step_notes").mkdir()
    assert [update for update, _ in checkpoint.checkpoints(tmp_path)] == [1, 2, 10]
    checkpoint.prune(tmp_path, [2, 10])
    assert {p.name for p in tmp_path.iterdir()} == {"step_2", "step_10", "step_notes"}


class Net(nn.Module):
    def __init__(self, encoder=4):
        super().__init__()
        self.encoder = nn.Linear(3, encoder)
        self.head = nn.Linear(4, 2)


def test_initial_weights_by_prefix_with_an_account(tmp_path):
    path = tmp_path / "source.safetensors"
    source = {
        "old.enc.weight": torch.ones(4, 3),
        "old.enc.bias": torch.ones(4),
        "old.enc.extra": torch.ones(1),
    }
    save_file(source, path)
    rule = f"{path}:old.enc.:encoder."
    with pytest.raises(
        InputError, match=r"old\.enc\.extra \(unexpected\); list what may differ in init\.allow"
    ):
        load_initial(Net(), Config([rule]))
    net = Net()
    head = net.head.weight.detach().clone()
    ((_, report),) = load_initial(net, Config([rule], ["old.enc.extra"]))
    assert report.loaded == ["encoder.weight", "encoder.bias"] and report.unexpected == ["old.enc.extra"]
    assert str(report) == "2 loaded; 0 missing; 1 unexpected (old.enc.extra); 0 shape"
    assert (net.encoder.weight == 1).all() and torch.equal(net.head.weight, head)
    with pytest.raises(InputError, match=r"head\.weight \(missing\), head\.bias \(missing\)"):
        load_initial(Net(), Config([f"{path}:old.enc.:"], ["old.*", "encoder.*"]))
    with pytest.raises(InputError, match=r"encoder\.weight: \(4, 3\) for \(5, 3\) \(shape\)"):
        load_initial(Net(5), Config([rule], ["old.*", "encoder.bias"]))
    with pytest.raises(InputError, match="nothing fits"):
        load_initial(Net(), Config([f"{path}:none.:encoder."], ["*"]))
    with pytest.raises(InputError, match="expected source:source_prefix:prefix"):
        load_initial(Net(), Config(["source"]))
