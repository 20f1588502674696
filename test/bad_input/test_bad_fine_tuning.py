"""Bad input where a run starts from another one's encoder: one line, exit status 1, nothing half-written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from factories import write_table
from tiny_training import World, make_tokenizer

from speechkit.bin.__main__ import main
from speechkit.config import load_config, read_yaml
from speechkit.train.checkpoint import checkpoints
from speechkit.train.run import RunConfig

SPEECH = """{name: wav2vec2, preset: tiny, dim: 8, layers: 1, heads: 2, feed_forward: 8,
  conv_channels: [4, 4, 4, 4, 4, 4, 4], pos_conv_kernel: 4, pos_conv_groups: 2}"""
MELS = "{name: conformer, dim: 8, layers: 1, heads: 2, feed_forward: 8, kernel: 3}"


def run(world, exp, *more, **changes):
    options = [a for a in world.arguments(exp, **changes) if not a.startswith("model.name")]
    return main(["train", *options, *map(str, more)])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """Checkpoints of an encoder of samples, and of one of log-mels with CMVN statistics."""
    world = World(tmp_path_factory.mktemp("world"), utterances=8, dev=3)
    short = {"loop__max_updates": 1, "validation__every": 1}
    assert run(world, "speech", f"model.encoder={SPEECH}", **short) == 0
    assert (
        main(["features", "--data", str(world.train), "--cmvn", "true", "--dump", "false", "--jobs", "1"])
        == 0
    )
    world.cmvn = world.train / "cmvn.json"
    assert run(world, "mels", f"model.encoder={MELS}", "--cmvn", world.cmvn, **short) == 0
    return world


def fails(capsys, world, *more, start="speech", said=(), exp="exp", **changes):
    """A run that starts from `start` must end with one line that holds all of `said`."""
    capsys.readouterr()
    assert run(world, exp, "--init-encoder", world.folder / start, *more, **changes) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("speechkit train: error: "), last
    for part in (said,) if isinstance(said, str) else said:
        assert str(part) in last, last
    assert not checkpoints(world.folder / exp) and not (world.folder / exp / "metrics.jsonl").exists()


def test_no_checkpoint(world, capsys):
    fails(capsys, world, start="none", said=("--init-encoder: ", "none: no such experiment folder"))
    (world.folder / "empty").mkdir()
    fails(capsys, world, start="empty", said="empty: holds no trained model")
    (world.folder / "begun/step_3").mkdir(parents=True)
    fails(capsys, world, start="begun", said="training has not finished, name one of its checkpoints: step_3")


def test_a_model_without_an_encoder(world, capsys):
    assert world.run("tiny", loop__max_updates=1, validation__every=1) == 0
    fails(capsys, world, start="tiny", said=("--init-encoder", "its tiny has no encoder"))
    fails(capsys, world, "model.name=tiny", said="model.encoder: unknown key")


def test_an_encoder_of_another_family(world, capsys):
    said = ("holds a wav2vec2 encoder, and model.encoder.name=conformer", "leave model.encoder.name out")
    fails(capsys, world, f"model.encoder={MELS}", said=said)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("model.encoder.dim=16", "model.encoder.dim: 8 -> 16"),
        ("model.encoder.normalize=none", "model.encoder.normalize: 'fairseq' -> 'none'"),
        ("model.encoder.heads=1", "model.encoder.heads: 2 -> 1"),
        ("features.rate=8000", "features.rate: 16000 -> 8000"),
    ],
)
def test_an_encoder_that_was_trained_otherwise(world, capsys, option, said):
    fails(capsys, world, option, said=("its encoder was trained otherwise", said, "init.allow"))


def test_what_may_differ_can_be_said(world):
    options = ["model.encoder.normalize=none", "init.allow=[model.encoder.normalize]"]
    start = ["--init-encoder", world.folder / "speech"]
    assert run(world, "allowed", *options, *start, loop__max_updates=1, validation__every=1) == 0
    assert load_config(RunConfig, world.folder / "allowed/config.yaml").model.encoder.normalize == "none"


def test_features_of_another_configuration(world, capsys):
    said = ("trained otherwise", "features.low_freq: 20.0 -> 100.0")
    fails(capsys, world, "features.low_freq=100", start="mels", said=said)
    fails(capsys, world, "features={name: mfcc}", start="mels", said="features.name: 'fbank' -> 'mfcc'")


def test_statistics_of_other_data(world, capsys):
    place = world.folder / "other.json"
    statistics = json.loads(world.cmvn.read_text())
    statistics["mean"][3] += 1
    place.write_text(json.dumps(statistics))
    said = ("--cmvn: ", "mels/final/assets/cmvn.json holds others", "leave --cmvn out")
    fails(capsys, world, "--cmvn", place, start="mels", said=said)


def test_statistics_come_from_the_checkpoint(world, capsys):
    start = ["--init-encoder", world.folder / "mels"]
    assert run(world, "taken", *start, loop__max_updates=1, validation__every=1) == 0
    assert "CMVN statistics from" in capsys.readouterr().err
    there, here = (
        json.loads((world.folder / exp / "final/assets/cmvn.json").read_text()) for exp in ("mels", "taken")
    )
    assert here["mean"] == there["mean"]


def test_statistics_that_nobody_uses_are_left_out_and_said_so(world, capsys):
    start = ["--init-encoder", world.folder / "speech", "--cmvn", world.cmvn]
    assert run(world, "unused", *start, loop__max_updates=1, validation__every=1) == 0
    assert "cmvn.json is not used: the model takes speech" in capsys.readouterr().err
    assert not (world.folder / "unused/final/assets/cmvn.json").exists()


def test_an_output_layer_for_other_tokens(world, capsys):
    rule = f"init.params=['{world.folder / 'speech/final'}::']"
    home, world.tokenizer = world.tokenizer, world.folder / "more"
    try:
        make_tokenizer(world.tokenizer, ["one two three four five six seven eight nine zero q"])
        said = (
            "its output layer is for",
            "other tokens than these",
            "take the encoder alone with --init-encoder",
        )
        fails(capsys, world, rule, said=said)
    finally:
        world.tokenizer = home


def test_the_same_number_of_other_tokens(world, capsys):
    """Nothing but the meaning of a row differs."""
    vocab, text = read_tokens(world.tokenizer), "one two three four five six seven eight nine qero"
    home, world.tokenizer = world.tokenizer, make_tokenizer(world.folder / "renamed", [text])
    try:
        assert len(read_tokens(world.tokenizer)) == len(vocab)
        rule = f"init.params=['{world.folder / 'speech/final'}::']"
        fails(capsys, world, rule, said=(f"for {len(vocab)} other tokens", "is 'r' and 'q'"))
    finally:
        world.tokenizer = home


def read_tokens(folder):
    return [line.split()[0] for line in (folder / "tokens.txt").read_text().splitlines() if line.split()]


def test_speech_shorter_than_one_frame(world, capsys, tmp_path):
    """399 samples: dropped from training with the reason, and never from dev."""
    short = World(tmp_path, utterances=8, dev=3)
    for folder in (short.train, short.dev):
        wav = sorted((folder / "audio").glob("*.wav"))[0]
        soundfile.write(wav, np.zeros(399, np.float32), 16000)
        counts = dict(line.split() for line in (folder / "utt2num_samples").read_text().splitlines())
        write_table(folder / "utt2num_samples", {**counts, wav.stem: "399"})
    start = world.folder / "speech"
    fails(capsys, short, start=start, said=("1 of 8 utterances dropped", "fewer than 1 frames"))
    ledger = [json.loads(line) for line in (tmp_path / "exp/ledger_train.jsonl").read_text().splitlines()]
    (dropped,) = [fate for fate in ledger if not fate["kept"]]
    assert dropped["detail"] == "0 of 399 samples"
    fails(capsys, short, start=start, said=("dev set", "fewer than 1 frames"), data__max_dropped=0.5)


def test_decoding_speech_shorter_than_one_frame(world, capsys, tmp_path):
    short = World(tmp_path, utterances=3, dev=3)
    wav = sorted((short.dev / "audio").glob("*.wav"))[1]
    soundfile.write(wav, np.zeros(200, np.float32), 16000)
    counts = dict(line.split() for line in (short.dev / "utt2num_samples").read_text().splitlines())
    write_table(short.dev / "utt2num_samples", {**counts, wav.stem: "200"})
    capsys.readouterr()
    model = ["--model", str(world.folder / "speech")]
    assert main(["decode", *model, "--data", str(short.dev), "--out", str(tmp_path / "out")]) == 1
    said = f"{wav.stem}: too short: 200 samples; the model's first frame takes 400"
    assert said in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "out").exists()
    assert main(["transcribe", *model, str(wav)]) == 1
    assert "too short: 200 samples" in capsys.readouterr().err


def test_nothing_that_learns(world, capsys):
    fails(capsys, world, "freeze=[{pattern: '*', until: 3}]", said="freeze: nothing would learn in update 0")


def test_printing_the_configuration_shows_the_encoder(world, capsys, tmp_path):
    start = ["--init-encoder", str(world.folder / "speech"), "model.encoder.layer_drop=0.3"]
    assert main(["train", *start, "--print-config", "true"]) == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    values, _ = read_yaml(tmp_path / "c.yaml")
    assert values["model"]["encoder"]["dim"] == 8 and values["model"]["encoder"]["layer_drop"] == 0.3
    assert values["init"]["encoder"] == str(world.folder / "speech")
