"""Weights of another checkpoint's encoder: new adapters are welcome, trained ones are never lost."""

import pytest
import torch
from torch import nn

from speechkit.errors import InputError
from speechkit.layers.adapters import Lora, apply_lora
from speechkit.train.checkpoint import save_weights
from speechkit.train.initial import Config, load_initial


def make(rank):
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"q_proj": nn.Linear(3, 4)})})
    if rank:
        apply_lora(model["encoder"], Lora(rank, targets=["q_proj"]))
    return model


def start(folder, there, here, allow=()):
    """Loads an encoder with low-rank changes of one rank (0: none) into one of another."""
    folder.mkdir(exist_ok=True)
    source, model = make(there), make(here)
    save_weights(folder / "model.safetensors", source.state_dict())
    ((_, report),) = load_initial(model, Config(allow=[*allow], encoder=str(folder)))
    assert torch.equal(model["encoder"]["q_proj"].weight, source["encoder"]["q_proj"].weight)
    return report


def test_adapters_may_be_new_or_the_same(tmp_path):
    assert len(start(tmp_path / "new", 0, 2).missing) == 2
    assert len(start(tmp_path / "same", 2, 2).loaded) == 4


@pytest.mark.parametrize("here, kind", [(0, "unexpected"), (1, "shape")])
def test_trained_adapters_are_not_lost_silently(tmp_path, here, kind):
    with pytest.raises(InputError, match=rf"lora_a.* \({kind}\).*list what may differ in init.allow"):
        start(tmp_path / "lost", 2, here)
    assert len(getattr(start(tmp_path / "lost", 2, here, ["*.lora_?"]), kind)) == 2
