"""Bad input to wav2vec 2.0 pre-training: one line that says what to do, and no checkpoint."""

from __future__ import annotations

import pytest
from tiny_training import World, make_dump

from speechkit.bin.__main__ import main
from speechkit.train.checkpoint import checkpoints

SMALL = "{name: conformer, dim: 16, layers: 1, heads: 2, feed_forward: 24, mask_embedding: true}"
TINY = "{preset: tiny, dim: 16, layers: 1, heads: 2, feed_forward: 24, pos_conv_groups: 4}"


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path, utterances=4, dev=2)


def run(world, encoder, **changes):
    return world.run("exp", model__name="wav2vec2", model__encoder=encoder, loop__max_updates=1, **changes)


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "encoder, changes, message",
    [
        (SMALL.replace("true", "false"), {}, "set model.encoder.mask_embedding=true"),
        (SMALL, {"model__penalty_weight": 10}, "model.penalty_weight=10.0: is for encoders of samples"),
        (SMALL, {"model__targets": "kmeans"}, "'kmeans' is not one of gumbel, linear"),
        (SMALL, {"model__mask__lenght": 5}, "unknown key; did you mean 'length'"),
        (SMALL, {"model__contrastive__negatives": 0}, "a contrastive loss needs at least one distractor"),
        (SMALL, {"model__quantizer__groups": 9}, "make more than 2^63 codewords"),
        (
            SMALL,
            {"plan__crop_seconds": 1, "plan__crop_align": "free"},
            "plan.crop_align=free: features are cut",
        ),
        (TINY, {"model__quantizer__dim": 9}, "dim=9 must be a multiple of groups=2"),
        (TINY, {"model__input_dim": 0}, "input_dim=0 must be in"),
        (TINY, {"model__input_dim": 80}, "input_dim=80: is for features, and the wav2vec2"),
    ],
)
def test_settings_that_cannot_be(world, encoder, changes, message, capsys):
    assert run(world, encoder, **changes) == 1
    assert message in last_line(capsys) and not checkpoints(world.folder / "exp")


def test_utterances_shorter_than_the_receptive_field(world, capsys):
    world.train = make_dump(world.folder / "short", 4, seconds=[0.0249] * 4)  # 398 samples; 400 make a frame
    assert run(world, TINY, data__max_dropped=0.5) == 1
    assert "speechkit train: error: " in last_line(capsys) and not checkpoints(world.folder / "exp")


def test_a_pretrained_model_has_nothing_to_decode(world, capsys):
    assert run(world, SMALL) == 0
    assert main(["decode", "--model", str(world.folder / "exp"), "--data", str(world.dev)]) == 1
    assert "it is a pre-training model; fine-tune it first" in last_line(capsys)
