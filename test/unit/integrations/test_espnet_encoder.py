"""Encoders of ESPnet where ESPnet is not there; with it see test/parity/test_espnet_encoders.py."""

import importlib.util

import pytest

from speechkit.config import dump, load_config
from speechkit.errors import InputError
from speechkit.integrations.espnet_encoder import Config, build, choices
from speechkit.train.run import RunConfig


def test_a_configuration_is_read_without_espnet(tmp_path):
    encoder = {"name": "espnet", "module": "rnn", "options": {"num_layers": 2, "subsample": [2, 1]}}
    config = load_config(RunConfig, model={"encoder": encoder})
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    assert (
        load_config(RunConfig, path).model.encoder
        == config.model.encoder
        == Config("espnet", "rnn", encoder["options"])
    )


@pytest.mark.skipif(importlib.util.find_spec("espnet2") is not None, reason="ESPnet is installed")
def test_what_to_install_is_said():
    with pytest.raises(
        InputError, match="ESPnet is not installed here; install it with: tools/setup.sh espnet"
    ):
        build(Config(), 80)


def test_the_table_is_read_without_running_the_file(tmp_path):
    path = tmp_path / "asr.py"
    path.write_text(
        "from a.b import C\nfrom a.d import C as D\nimport nothing_of_that_name\n"
        'encoder_choices = Choices("encoder", classes=dict(one=C, other=D), default="one")\n'
    )
    assert choices(path) == {"one": ("a.b", "C"), "other": ("a.d", "C")}
    path.write_text("x = 1\n")
    with pytest.raises(InputError, match="no table of encoders"):
        choices(path)
