"""Features of a frozen encoder: the right block, no padding effects, chunks, and only of the model meant."""

import json

import numpy as np
import pytest
import torch
from decoding_checkpoints import CONFORMER, WAV2VEC2, make_checkpoint
from factories import waveform
from tiny_training import World, make_dump, rows

from speechkit.bin.__main__ import main
from speechkit.data.archive import read_array
from speechkit.data.audio import read_audio
from speechkit.data.batch import pad
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.decoding import encoder_features
from speechkit.errors import InputError
from speechkit.frontends import fbank
from speechkit.train.checkpoint import load_model


def config_of(folder, **values):
    return encoder_features.Config(checkpoint=str(folder), **values)


@pytest.fixture(params=["features", "group", "layer", "legacy"])
def checkpoint(request, tmp_path):
    if request.param == "legacy":  # its frames depend on the batch in training, never here
        encoder = {**WAV2VEC2, "extractor": "layer", "pad_mask": "legacy"}
    else:
        encoder = CONFORMER if request.param == "features" else {**WAV2VEC2, "extractor": request.param}
    return make_checkpoint(tmp_path / "model", encoder, cmvn=request.param == "features")


def states_by_hand(folder, speech):
    """Every state of the checkpoint's encoder, from the model itself."""
    model, run, _ = load_model(folder)
    x = torch.from_numpy(speech)
    if model.encoder.takes == "features":
        x = (torch.from_numpy(fbank.build(run.features)(speech)) - 8) / 3
    model.encoder.keep_hidden_states = True
    with torch.no_grad():
        output = model.encoder(x[None], torch.tensor([len(x)]))
    return [state[0].numpy() for state in output.hidden_states], output.frames[0].numpy()


def test_each_layer_is_the_output_of_its_block(checkpoint):
    speech = waveform(1.3, seed=1)
    states, last = states_by_hand(checkpoint, speech)
    for layer, state in enumerate(states):
        extractor = encoder_features.build(config_of(checkpoint, layer=layer))
        made = extractor(speech)
        np.testing.assert_allclose(made, state, atol=1e-5)
        assert made.dtype == np.float32 and extractor.dim == made.shape[1]
    np.testing.assert_allclose(encoder_features.build(config_of(checkpoint))(speech), last, atol=1e-5)
    differing = [np.abs(a - b).max() for a, b in zip(states, states[1:])]
    assert min(differing) > 1e-3


def test_frames_is_what_comes_out(checkpoint):
    extractor = encoder_features.build(config_of(checkpoint, layer=1))
    speech = waveform(1, seed=2)
    edge = extractor.window
    for samples in (0, 1, 399, edge - 1, edge, edge + extractor.shift - 1, edge + extractor.shift, 16000):
        made = extractor(speech[:samples])
        assert made.shape == (extractor.frames(samples), 16), samples
    assert extractor.frames(edge - 1) == 0 and extractor.frames(edge) == 1
    assert extractor.frames(edge + extractor.shift) == 2
    known = {"conformer": (640, 1360, 680.0), "wav2vec2": (320, 400, 200.0)}
    kind = load_model(checkpoint)[1].model.encoder.name
    assert (extractor.shift, extractor.window, extractor.middle) == known[kind]


def test_one_by_one_equals_a_batch(checkpoint):
    extractor = encoder_features.build(config_of(checkpoint, layer=2))
    speeches = [waveform(seconds, seed=3) for seconds in (0.8, 2.1, 0.3, 1.4)]
    together = extractor.many(speeches)
    assert len(extractor._batches([40, 105, 15, 70])) == 1
    for speech, made in zip(speeches, together):
        np.testing.assert_allclose(made, extractor(speech), atol=2e-5)
    whole = pad([extractor.encoder.inputs(speech) for speech in speeches])
    assert len(set(whole.lengths.tolist())) == 4  # there was padding


def chunk_bounds(extractor, samples, seconds):
    """Frames at which chunks begin and end: as few as fit, of about equal lengths."""
    total, most = extractor.frames(samples), (int(seconds * 16000) - extractor.window) // extractor.shift + 1
    return np.linspace(0, total, -(-total // most) + 1).astype(int)


def test_a_chunk_is_encoded_as_if_it_were_alone(checkpoint):
    speech = waveform(7.1, seed=4)
    extractor = encoder_features.build(config_of(checkpoint, layer=2, chunk_seconds=3.0))
    made = extractor(speech)
    assert len(made) == extractor.frames(len(speech))
    bounds = chunk_bounds(extractor, len(speech), 3.0)
    assert len(bounds) == 4
    for start, end in zip(bounds, bounds[1:]):
        stop = len(speech) if end == len(made) else (end - 1) * extractor.shift + extractor.window
        alone = states_by_hand(checkpoint, speech[start * extractor.shift : stop])[0][2]
        np.testing.assert_allclose(made[start:end], alone, atol=2e-4)


NORMALISED = {**WAV2VEC2, "extractor": "layer", "normalize": "fairseq"}


def test_samples_are_normalised_once_as_the_encoder_does(tmp_path):
    folder = make_checkpoint(tmp_path / "model", NORMALISED, cmvn=False)
    speech = 0.01 * waveform(1.3, seed=1) + 0.02
    states, last = states_by_hand(folder, speech)
    np.testing.assert_allclose(encoder_features.build(config_of(folder))(speech), last, atol=1e-5)
    made = encoder_features.build(config_of(folder, layer=2)).many([waveform(2, seed=2), speech])
    np.testing.assert_allclose(made[1], states[2], atol=2e-5)


@pytest.mark.parametrize(
    "encoder,reach", [(CONFORMER, 0), ({**WAV2VEC2, "extractor": "layer"}, 4), (NORMALISED, 4)]
)
def test_before_attention_chunks_differ_at_their_borders_only(tmp_path, encoder, reach):
    """Subsampling sees its whole window in every chunk; positions by convolution see 4 frames further."""
    folder = make_checkpoint(tmp_path / "model", encoder, cmvn=reach == 0)
    speech = waveform(7.1, seed=4)
    speech *= np.linspace(0.2, 1, len(speech), dtype=np.float32)  # chunks of different levels
    whole, parts = (
        encoder_features.build(config_of(folder, layer=0, chunk_seconds=seconds)) for seconds in (100.0, 3.0)
    )
    bounds = chunk_bounds(parts, len(speech), 3.0)[1:-1]
    difference = np.abs(whole(speech) - parts(speech)).max(axis=1)
    near = (np.abs(np.arange(len(difference))[:, None] - bounds + 0.5) <= reach).any(axis=1)
    assert difference[~near].max() < 1e-4 and near.sum() == 2 * reach * len(bounds)
    assert reach == 0 or (difference[near] > 1e-4).mean() > 0.8  # an even kernel sees less on one side


def test_evaluation_only(checkpoint):
    speech = waveform(0.5, seed=5)
    extractor = encoder_features.Extractor(config_of(checkpoint, layer=1))
    assert np.array_equal(extractor(speech), extractor(speech))  # dropout is 0.3 in training
    extractor.encoder.encoder.train()
    with pytest.raises(RuntimeError, match="training mode"):
        extractor(speech)


def test_unused_blocks_are_not_computed(tmp_path):
    folder = make_checkpoint(tmp_path / "model", CONFORMER)
    assert len(encoder_features.build(config_of(folder, layer=1)).encoder.encoder.blocks) == 1
    with pytest.raises(InputError, match="layer=4: the encoder of .* has 3 blocks"):
        encoder_features.build(config_of(folder, layer=4))


def test_the_weights_are_part_of_what_the_features_are(tmp_path):
    one, same, other = (
        make_checkpoint(tmp_path / name, CONFORMER, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert config_of(one).weights == config_of(same).weights != config_of(other).weights
    fixed = config_of(one, layer=2)
    fixed.checkpoint = str(other)
    with pytest.raises(InputError, match="holds another model"):
        encoder_features.build(fixed)


def features(folder, *options):
    return main(["features", "--data", str(folder), *map(str, options)])


def test_dump_is_made_once_and_refused_to_another_model(tmp_path, capsys):
    from speechkit.data.feature_record import check_features

    one, other = (make_checkpoint(tmp_path / name, CONFORMER, seed) for name, seed in (("a", 0), ("c", 1)))
    data = make_dump(tmp_path / "data", 7)
    asked = ["name=encoder", f"checkpoint={one}", "layer=2"]
    assert features(data, "--jobs", 2, *asked) == 0
    assert "encoder 16" in capsys.readouterr().err
    assert features(data, "--jobs", 1, *asked) == 0 and "is up to date" in capsys.readouterr().err

    extractor, tables = encoder_features.build(config_of(one, layer=2)), read_data_dir(data)
    for utterance in tables.utterances:
        dumped = read_array(tables.tables["feats.scp"][utterance])
        speech = read_audio(tables.wav[utterance], rate=16000)
        np.testing.assert_allclose(dumped, extractor(speech), atol=2e-5)
        assert len(dumped) == int(tables.tables["utt2num_frames"][utterance])
    assert json.loads((data / "features.json").read_text())["config"]["weights"] == extractor.config.weights

    check_features(data, config_of(one, layer=2))
    moved = make_checkpoint(tmp_path / "moved", CONFORMER, 0)
    check_features(data, config_of(moved, layer=2))  # the same weights elsewhere
    for wrong, said in ((config_of(other, layer=2), "weights"), (config_of(one, layer=1), "layer: 2 -> 1")):
        with pytest.raises(InputError, match=f"of other features than the model's .*{said}"):
            check_features(data, wrong)


def test_kmeans_over_a_block_knows_its_rate(tmp_path):
    folder = make_checkpoint(tmp_path / "model", CONFORMER)
    data = make_dump(tmp_path / "data", 6)
    asked = ["name=encoder", f"checkpoint={folder}", "layer=1"]
    train = ["kmeans", "train", "--data", data, "--out", tmp_path / "km", "--clusters", 4, "--restarts", 1]
    assert main([*map(str, train), *asked]) == 0
    apply = ["kmeans", "apply", "--model", tmp_path / "km", "--data", data, "--name", "layer1", "--jobs", 2]
    assert main([*map(str, apply)]) == 0
    record = json.loads((data / "km_layer1.json").read_text())
    assert record["label_rate"] == 25 and record["offset"] == pytest.approx(680 / 16000)


@pytest.mark.parametrize(
    "model,encoder", [("hubert", WAV2VEC2), ("wav2vec2", {**CONFORMER, "mask_embedding": True})]
)
def test_pretraining_systems_give_features_without_masks(tmp_path, model, encoder):
    folder = make_checkpoint(tmp_path / "model", encoder, model=model, cmvn=encoder is not WAV2VEC2)
    speech = waveform(1, seed=6)
    states, _ = states_by_hand(folder, speech)
    np.testing.assert_allclose(
        encoder_features.build(config_of(folder, layer=2))(speech), states[2], atol=1e-5
    )


def test_a_recogniser_learns_on_frozen_features_dumped_or_not(tmp_path):
    world = World(tmp_path, utterances=6, dev=3)
    folder = make_checkpoint(tmp_path / "model", {**CONFORMER, "subsampling": {"factor": 2}})
    options = {
        **{"features__name": "encoder", "features__checkpoint": folder, "features__layer": 2},
        **{"model__name": "ctc", "model__input_dim": 16, "model__encoder": "{name: linear, dropout: 0}"},
        **{"loop__max_updates": 4, "data__max_dropped": 1.0, "validation__every": 4},
    }
    assert world.run("computed", **options) == 0
    for data in (world.train, world.dev):
        assert features(data, "--jobs", 1, "name=encoder", f"checkpoint={folder}", "layer=2") == 0
    assert world.run("dumped", **options) == 0
    one, other = (rows(tmp_path / exp, "train") for exp in ("computed", "dumped"))
    assert len(one) == 4 and [row["loss"] for row in one] == pytest.approx(
        [row["loss"] for row in other], rel=1e-4
    )
    decode = ["decode", "--model", tmp_path / "dumped", "--data", world.dev, "--how", "greedy"]
    assert main([*map(str, decode)]) == 0
    assert world.run("other", **{**options, "features__layer": 1}) == 1  # those dumped are of another block
