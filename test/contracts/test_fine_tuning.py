"""Contracts of training that starts from a pre-trained encoder and freezes parts of it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from factories import waveform
from tiny_training import World, on_ranks, rows, weights

import speechkit
from speechkit.bin.__main__ import main
from speechkit.config import load_config, read_yaml
from speechkit.data.batch import Batch, pad
from speechkit.layers.adapters import merge_lora
from speechkit.train.checkpoint import load_model, load_state, load_weights
from speechkit.train.run import RunConfig

ENCODER = """{name: wav2vec2, preset: tiny, dim: 16, layers: 2, heads: 2, feed_forward: 24,
  conv_channels: [8, 8, 8, 8, 8, 8, 8], pos_conv_kernel: 6, pos_conv_groups: 4, normalize: hf}"""
TUNING = """
model:
  name: ctc
  encoder: {feature_grad_mult: 0, layer_drop: 0.2, dropout: 0.1, activation_dropout: 0.1}
  masking: {time: {probability: 0.5, length: 4}, channels: {probability: 0.3, length: 3}}
freeze: [{pattern: encoder.*, until: 5}]
optim: {weight_decay: 0.1, layer_decay: 0.8}
"""
CONVOLUTIONS = "encoder.feature_extractor.conv_layers."


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """Data, a pre-trained encoder in exp `pretrained`, and a YAML of fine-tuning."""
    made = World(tmp_path_factory.mktemp("world"))
    (made.folder / "pre.yaml").write_text(f"model: {{name: wav2vec2, encoder: {ENCODER}}}\n")
    (made.folder / "tune.yaml").write_text(TUNING)
    options = [a for a in made.arguments("pretrained", loop__max_updates=3) if not a.startswith("model.")]
    at = options.index("--tokenizer")
    del options[at : at + 2]
    assert main(["train", "--config", str(made.folder / "pre.yaml"), *options]) == 0
    return made


def command(world, exp="exp", *more, start="pretrained", **changes):
    """The fine-tuning command; `optim.lr` 0.01 as in all tiny runs."""
    options = [a for a in world.arguments(exp, **changes) if not a.startswith("model.name")]
    start = ["--init-encoder", str(world.folder / start)] if start else []
    return ["train", "--config", str(world.folder / "tune.yaml"), *options, *start, *more]


def tune(world, exp="exp", *more, **changes):
    return main(command(world, exp, *more, **changes))


@pytest.fixture(scope="module")
def tuned(world):
    """An undisturbed run with averaged weights, checkpoints after 4 (frozen), 8 and 12 updates."""
    assert tune(world, "tuned", ema__decay=0.9, checkpoints__keep_last=3) == 0
    return world.folder / "tuned"


def test_the_configuration_is_the_checkpoints_under_the_yaml(world, tuned):
    before = read_yaml(world.folder / "pretrained/config.yaml")[0]["model"]["encoder"]
    for place in (tuned, tuned / "final"):
        encoder = read_yaml(place / "config.yaml")[0]["model"]["encoder"]
        changed = {key for key in encoder if encoder[key] != before[key]}
        assert changed <= {"feature_grad_mult", "layer_drop", "dropout", "activation_dropout"}
        assert encoder["dim"] == 16 and encoder["normalize"] == "hf" and encoder["layer_drop"] == 0.2
    config = load_config(RunConfig, tuned / "config.yaml")
    assert config.init.encoder == str(world.folder / "pretrained")


def test_weights_are_the_checkpoints_with_an_account(world, capsys):
    assert tune(world, "account", loop__max_updates=4) == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "init encoder from" in line]
    start = weights(world.folder / "pretrained/final")
    names = [name for name in start if name.startswith("encoder.")]
    assert f"{len(names)} loaded; 0 missing; 0 unexpected; 0 shape" in line
    # frozen for these 4 updates: still the same bits
    after = weights(world.folder / "account/step_4")
    assert all(torch.equal(after[name], start[name]) for name in names) and len(names) > 30


def test_parts_learn_when_their_time_comes_and_the_convolutions_never(world, tuned):
    start = weights(world.folder / "pretrained/final")
    names = {name for name in start if name.startswith("encoder.")}
    steps = {n: weights(tuned / f"step_{n}") for n in (4, 8, 12)}
    assert not torch.equal(steps[4]["head.weight"], steps[8]["head.weight"])
    moved = {name for name in names if not torch.equal(start[name], steps[12][name])}
    assert {name for name in names if not torch.equal(start[name], steps[4][name])} == set()
    assert not any(CONVOLUTIONS in name for name in moved)
    assert moved == {name for name in names if CONVOLUTIONS not in name}
    moments = load_state(tuned / "step_12")["optimizer"]["state"]
    learning = {name for name in steps[12] if CONVOLUTIONS not in name and name != "masked"}
    assert len(moments) == len(learning)
    assert sorted({int(m["step"]) for m in moments.values()}) == [7, 12]  # the encoder from update 5 on


def test_averaged_weights_follow_what_learns(world, tuned):
    start = weights(world.folder / "pretrained/final")
    own, averaged = (load_weights(tuned / f"step_12/{name}.safetensors") for name in ("model", "ema"))
    for name in own:
        assert torch.equal(own[name], averaged[name]) == (CONVOLUTIONS in name), name
        if CONVOLUTIONS in name:
            assert torch.equal(averaged[name], start[name])


@pytest.mark.parametrize("stop", [2, 6])
def test_a_stopped_run_continues_to_the_same_bits(world, tuned, stop, monkeypatch):
    """Stopped while the encoder is frozen, and when it learns; the folder it came from is gone by then."""
    import os
    import signal

    from speechkit.models.ctc import CtcModel

    exp, home = f"stopped{stop}", f"home{stop}"
    shutil.copytree(world.folder / "pretrained", world.folder / home)
    options = {"ema__decay": 0.9, "checkpoints__keep_last": 3, "start": home}
    real = CtcModel.set_update

    def interrupt(self, update):
        if update == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, update)

    monkeypatch.setattr(CtcModel, "set_update", interrupt)
    assert tune(world, exp, **options) == 75
    monkeypatch.undo()
    shutil.rmtree(world.folder / home)
    assert tune(world, exp, **options) == 0
    for place in ("step_4", "step_12", "final"):
        one, other = weights(tuned / place), weights(world.folder / exp / place)
        assert all(torch.equal(one[name], other[name]) for name in one), place
    assert rows(tuned) == rows(world.folder / exp)


def test_two_ranks_make_the_updates_of_one(world, tmp_path):
    options = {"plan__micro_batches": 2, "plan__seconds": 1.5, "ema__decay": 0.9}
    assert tune(world, "one_rank", **options) == 0
    statuses = on_ranks(2, lambda: tune(world, "two_ranks", **options), tmp_path / "log")
    assert statuses == [0, 0], (tmp_path / "log.0").read_text()
    for file in ("model", "ema"):
        one, two = (
            load_weights(world.folder / e / f"step_12/{file}.safetensors") for e in ("one_rank", "two_ranks")
        )
        for name in one:
            torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=0, msg=name)
    for a, b in zip(rows(world.folder / "one_rank", "train"), rows(world.folder / "two_ranks", "train")):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_the_result_needs_nothing_else(world, tuned, tmp_path, capsys):
    """Decoding, and recognition of files and samples, from a copy of final/ alone."""
    shutil.copytree(tuned / "final", tmp_path / "moved")
    recognizer = speechkit.load(tmp_path / "moved")
    assert recognizer.model.inputs == ("speech",)
    wav = sorted((world.dev / "audio").glob("*.wav"))
    together = recognizer.transcribe(wav)
    assert together == [recognizer.transcribe(path) for path in wav]
    command = ["decode", "--model", str(tmp_path / "moved"), "--data", str(world.dev)]
    assert main([*command, "--out", str(tmp_path / "out"), "seconds=2"]) == 0
    texts = dict(
        line.rstrip("\n").partition(" ")[::2] for line in (tmp_path / "out/text").read_text().splitlines()
    )
    assert [texts[path.stem] for path in wav] == together
    assert main(["transcribe", "--model", str(tmp_path / "moved"), str(wav[0])]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{wav[0]}\t{together[0]}"
    with pytest.raises(speechkit.errors.BadSample, match=r"399 samples; the model's first frame takes 400"):
        recognizer.transcribe(np.zeros(399, np.float32))
    assert isinstance(recognizer.transcribe(np.zeros(400, np.float32)), str)


def test_adapters_join_a_checkpoint_without_them(world, capsys):
    lora = ["model.encoder.lora={rank: 2}", "model.encoder.adapter={dim: 3}", "freeze=[]"]
    assert tune(world, "adapted", *lora) == 0
    assert "missing (encoder.encoder.layers.0.attention" in capsys.readouterr().err
    start, after = weights(world.folder / "pretrained/final"), weights(world.folder / "adapted/step_12")
    moved = {name for name in start if name in after and not torch.equal(start[name], after[name])}
    assert moved and all("layers." in name and "layer_norm" in name for name in moved)
    new = {name for name in after if name not in start}
    assert all("lora_" in name or ".adapter." in name or name.startswith("head.") for name in new)
    state = load_state(world.folder / "adapted/step_12")
    assert len(state["optimizer"]["state"]) == len(moved) + len(new)
    assert isinstance(speechkit.load(world.folder / "adapted").transcribe(np.zeros(8000, np.float32)), str)


def test_low_rank_changes_are_merged_for_other_programs(world, tmp_path):
    transformers = pytest.importorskip("transformers")
    lora = ["model.encoder.lora={rank: 2, alpha: 32}", "freeze=[]"]
    assert tune(world, "lora", *lora, loop__max_updates=4) == 0
    convert = ["convert", "--model", str(world.folder / "lora"), "--to", "huggingface"]
    assert main([*convert, "--out", str(tmp_path / "theirs")]) == 0
    model, _, _ = load_model(world.folder / "lora")
    theirs = transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path / "theirs").eval()
    speech = torch.from_numpy(waveform(0.5, seed=3))
    normal = (speech - speech.mean()) / torch.sqrt(speech.var(unbiased=False) + 1e-7)
    batch = Batch(["u"], torch.tensor([1]), None, {"speech": pad([speech])})
    with torch.no_grad():
        found, expected = theirs(normal[None]).logits.log_softmax(-1), model.encode(batch)["ctc"][0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert not merge_lora(theirs) and merge_lora(model)  # they have plain weights
        start = weights(world.folder / "pretrained/final")["encoder.encoder.layers.0.attention.q_proj.weight"]
        merged = model.encoder.encoder.layers[0].attention.q_proj.weight
    assert (merged - start).abs().max() > 1e-3 and torch.linalg.matrix_rank(merged - start, rtol=1e-3) == 2


def test_a_small_head_learns_on_dumped_outputs_of_a_frozen_encoder(world, tmp_path, capsys):
    """What the encoder says is computed once; a change of the waveform could not reach it."""
    small = World(tmp_path)
    start = world.folder / "pretrained"
    for data in (small.train, small.dev):
        made = ["name=encoder", f"checkpoint={start}", "layer=1"]
        assert main(["features", "--data", str(data), "--jobs", "1", *made]) == 0
    options = [a for a in small.arguments("exp", loop__max_updates=4) if not a.startswith("model.")]
    options += [
        f"features={{name: encoder, checkpoint: {start}, layer: 1}}",
        "model={name: ctc, input_dim: 16, encoder: {name: linear, dropout: 0}}",
    ]
    for option in ("augment.speeds=[0.9,1.0]", "augment.gain.probability=0.5"):
        capsys.readouterr()
        assert main(["train", *options, option]) == 1
        assert "augment: changes the waveform, and these features are" in capsys.readouterr().err
    assert main(["train", *options]) == 0
    assert set(weights(tmp_path / "exp/final")) == {
        "encoder.norm.weight", "encoder.norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    # the same from audio: the extractor is the frozen encoder
    wav = sorted((small.dev / "audio").glob("*.wav"))
    texts = speechkit.load(tmp_path / "exp").transcribe(wav)
    decode = ["decode", "--model", str(tmp_path / "exp"), "--data", str(small.dev)]
    assert main([*decode, "--out", str(tmp_path / "out")]) == 0
    lines = [line.partition(" ")[2] for line in (tmp_path / "out/text").read_text().splitlines()]
    assert lines == texts
