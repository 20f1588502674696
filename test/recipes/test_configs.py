"""Every configuration of every recipe loads; every model that one describes can be built and run."""

from pathlib import Path

import pytest
import torch

from speechkit.config import dump, load_config, load_kind, read_yaml
from speechkit.data.batch import Batch, Padded
from speechkit.decoding import DecodeConfig
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.systems import read_systems
from speechkit.text.normalise import Normaliser
from speechkit.train.run import RunConfig

EGS = Path(__file__).parents[2] / "egs"
TRAIN = sorted(EGS.glob("*/*/conf/train*.yaml"))
DECODE = sorted(EGS.glob("*/*/conf/decode*.yaml"))
SYSTEMS = sorted(EGS.glob("*/*/conf/systems*.yaml"))


class Letters:
    """A tokenizer's size is all that building a model asks for."""

    vocab = ["<blank>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "▁", "<sos/eos>"]
    blank, unk, eos, normaliser = 0, 1, 29, Normaliser()


def name(path):
    return str(path.relative_to(EGS))


def test_there_are_recipes():
    assert len(TRAIN) >= 3 and len(DECODE) >= 4 and SYSTEMS


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_a_training_configuration_builds_its_model(path, tmp_path):
    config = load_config(RunConfig, path)
    again = tmp_path / "again.yaml"
    again.write_text(dump(config), encoding="utf-8")
    assert load_config(RunConfig, again) == config
    model = load_kind(MODELS, config.model.name).build(config.model, Assets(Letters())).eval()
    (field,) = model.inputs
    shape, lengths = {"features": ((2, 200, 80), [200, 120]), "speech": ((2, 8000), [8000, 5000])}[field]
    lengths = torch.tensor(lengths)
    fields = {field: Padded(torch.randn(shape), lengths)}
    log_probs, frames = model.encode(Batch(["a", "b"], torch.zeros(2).long(), fields=fields))["ctc"]
    assert log_probs.shape[::2] == (2, len(Letters.vocab))
    assert torch.equal(frames, model.output_lengths(lengths)) and log_probs.isfinite().all()


@pytest.mark.parametrize("path", DECODE, ids=name)
def test_a_decoding_configuration_loads(path):
    assert load_config(DecodeConfig, path).search.name


@pytest.mark.parametrize("path", SYSTEMS, ids=name)
def test_a_comparison_names_files_that_exist(path):
    systems = read_systems(path)
    recipe = path.parents[1]
    for system in systems.systems.values():
        if system.train:
            load_config(RunConfig, recipe / system.train, [o.replace("{seed}", "1") for o in system.options])
        for how in system.decodes:
            config = load_config(DecodeConfig, recipe / systems.decodes[how].config)
            assert bool(config.grid) == bool(systems.decodes[how].tune_on), how
            tuned_on = systems.decodes[how].tune_on
            assert tuned_on not in systems.test_sets or Path(tuned_on).name.startswith("dev")


@pytest.mark.parametrize("path", sorted(EGS.glob("*/*/conf/*.yaml")), ids=name)
def test_a_configuration_is_short(path):
    values, _ = read_yaml(path)
    assert values, "an empty file says nothing"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
