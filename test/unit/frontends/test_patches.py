"""Patches against loops over their definition; scaling against numpy; statistics refused by hash."""

import json

import numpy as np
import pytest
import torch
from factories import waveform
from torch.nn.functional import conv1d, conv3d

from speechkit.config import from_dict, load_config, to_dict
from speechkit.errors import InputError
from speechkit.frontends import audio_patches, fbank, video_patches
from speechkit.frontends.cmvn import Statistics
from speechkit.frontends.patches import (
    FrameConfig,
    PixelScaling,
    Whitening,
    config_hash,
    patchify_video,
    stack_audio,
    unpatchify_video,
    video_grid,
)

LFBE = fbank.Config(bins=64, snip_edges=False)


def frames(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_ten_seconds_make_5120_video_and_333_audio_tokens():
    assert patchify_video(torch.zeros(1, 60, 256, 256, 3, dtype=torch.uint8)).shape == (1, 5120, 2304)
    assert np.prod(video_grid(60, 256, 256)) == 5120
    assert fbank.build(LFBE).frames(160000) == 1000
    tokens, lengths = stack_audio(torch.zeros(1, 1000, 64), torch.tensor([1000]))
    assert tokens.shape == (1, 333, 192) and lengths.tolist() == [333]
    scaled = {"mean": [0.0] * 64, "std": [1.0] * 64}
    assert audio_patches.build(audio_patches.of_features(LFBE, scaled)).frames(160000) == 333
    # Kaldi's own framing gives 998 frames.
    assert audio_patches.build(audio_patches.of_features(fbank.Config(bins=64), scaled)).frames(160000) == 332


@pytest.mark.parametrize("tubelet, patch, shape", [(3, 4, (2, 9, 8, 12, 3)), (1, 2, (1, 2, 4, 2, 3))])
def test_tokens_run_along_time_then_rows_then_columns(tubelet, patch, shape):
    x = frames(*shape)
    tokens = patchify_video(x, tubelet, patch)
    grid = video_grid(*shape[1:4], tubelet, patch)
    place = 0
    for t in range(grid[0]):
        for row in range(grid[1]):
            for column in range(grid[2]):
                voxel = x[
                    :,
                    t * tubelet : (t + 1) * tubelet,
                    row * patch : (row + 1) * patch,
                    column * patch : (column + 1) * patch,
                ]
                assert torch.equal(tokens[:, place], voxel.flatten(1))
                place += 1
    assert place == tokens.shape[1] and tokens.dtype == torch.uint8
    assert torch.equal(unpatchify_video(tokens, grid, tubelet, patch), x)


def test_an_incomplete_voxel_is_left_out_and_odd_pixels_are_refused():
    x = frames(1, 5, 16, 16, 3)
    assert torch.equal(unpatchify_video(patchify_video(x), (1, 1, 1)), x[:, :3])
    assert patchify_video(x[:, :2]).shape == (1, 0, 2304)
    with pytest.raises(InputError, match="16 x 24 pixels"):
        patchify_video(torch.zeros(1, 3, 16, 24, 3))


def test_a_convolution_is_a_product_with_these_patches():
    """Either is a linear embedding: Conv3d of voxels, Conv1d of frames (float64)."""
    x = frames(2, 6, 32, 32, 3).double()
    weight = torch.randn(5, 3, 3, 16, 16, dtype=torch.float64)  # outputs, colours, time, rows, columns
    by_hand = patchify_video(x) @ weight.permute(2, 3, 4, 1, 0).reshape(-1, 5)
    convolved = conv3d(x.permute(0, 4, 1, 2, 3), weight, stride=(3, 16, 16)).flatten(2).transpose(1, 2)
    assert (by_hand - convolved).abs().max() / convolved.abs().max() < 1e-12
    features = torch.randn(2, 10, 64, dtype=torch.float64)
    weight = torch.randn(5, 64, 3, dtype=torch.float64)
    stacked, _ = stack_audio(features, torch.tensor([10, 10]))
    by_hand = stacked @ weight.permute(2, 1, 0).reshape(-1, 5)
    convolved = conv1d(features.transpose(1, 2), weight, stride=3).transpose(1, 2)
    assert (by_hand - convolved).abs().max() / convolved.abs().max() < 1e-12


def test_the_last_audio_token_is_dropped_or_filled_with_zeros():
    x = torch.randn(4, 8, 2)
    lengths = torch.tensor([8, 6, 1, 0])
    dropped, counts = stack_audio(x, lengths)
    assert dropped.shape == (4, 2, 6) and counts.tolist() == [2, 2, 0, 0]
    assert torch.equal(dropped[0], x[0, :6].reshape(2, 6))
    x[3] = float("nan")
    x[2, 1:] = float("inf")
    filled, counts = stack_audio(x, lengths, pad=True)
    assert filled.shape == (4, 3, 6) and counts.tolist() == [3, 2, 1, 0]
    assert torch.equal(filled[0].reshape(9, 2), torch.cat([x[0], torch.zeros(1, 2)]))
    assert torch.equal(filled[2, 0], torch.cat([x[2, 0], torch.zeros(4)])) and not filled[3].any()
    assert counts.dtype == torch.int64


@pytest.mark.parametrize("whiten", ["per_bin", "scalar"])
def test_whitening_is_that_of_all_frames_and_clips(whiten):
    random = np.random.default_rng(0)
    values = (random.standard_normal((4000, 5)) * [1, 2, 3, 4, 5] + [0, 5, -3, 8, 1]).astype(np.float32)
    statistics = Statistics(5)
    statistics.add(values)
    white = Whitening(statistics.to_dict(), whiten)(torch.from_numpy(values)).numpy()
    axis = 0 if whiten == "per_bin" else None
    wanted = (values - values.mean(axis)) / values.std(axis)
    np.testing.assert_allclose(white, wanted.clip(-1.2, 1.2), atol=1e-4)
    if whiten == "per_bin":  # 23 % of a normal distribution lie outside of 1.2 deviations
        assert 0.21 < (np.abs(white) == np.float32(1.2)).mean() < 0.25


def test_pixels_are_scaled_by_colour():
    x = frames(2, 3, 4, 4, 3)
    scaled = PixelScaling({"mean": [0.1, 0.5, 0.9], "std": [0.5, 0.25, 2.0]})(x)
    np.testing.assert_allclose(
        scaled.numpy(), (x.numpy() / 255 - [0.1, 0.5, 0.9]) / [0.5, 0.25, 2.0], atol=1e-6
    )
    assert scaled.dtype == torch.float32


@pytest.fixture
def cmvn(tmp_path):
    path = tmp_path / "cmvn.json"
    values = {"mean": [float(i) for i in range(64)], "std": [2.0] * 64, "frames": 9}
    path.write_text(json.dumps({**values, "config": to_dict(LFBE), "speaker_cmvn": False}))
    return path


@pytest.fixture
def video_stats(tmp_path):
    path = tmp_path / "video_stats.json"
    values = {"mean": [0.2, 0.3, 0.4], "std": [0.5, 0.6, 0.7]}
    path.write_text(json.dumps({**values, "config": to_dict(FrameConfig(6.0, 32))}))
    return path


def test_audio_tokens_are_those_of_the_parts(cmvn):
    config = load_config(audio_patches.Config, overrides=[f"statistics={cmvn}"])
    extractor, sound = audio_patches.build(config), waveform(1.0)
    features = fbank.build(LFBE)(sound)
    white = ((features - np.arange(64)) / 2).clip(-1.2, 1.2)
    tokens = extractor(sound)
    np.testing.assert_allclose(tokens, white[:99].reshape(33, 192), atol=1e-5)
    assert tokens.shape == (extractor.frames(16000), extractor.dim) and tokens.dtype == np.float32
    assert extractor.rate / extractor.shift == 100 / 3 and extractor.middle == 80 + 160
    # What counts are the values, not where they were: a model finds the same hash without the file.
    moved = from_dict(audio_patches.Config, to_dict(config))
    of_model = audio_patches.of_features(LFBE, json.loads(cmvn.read_text()))
    assert moved == config and moved.hash == config.hash == of_model.hash
    others = [{"whiten": "scalar"}, {"limit": 2.0}, {"stack": 9}]
    hashes = {audio_patches.of_features(LFBE, json.loads(cmvn.read_text()), **o).hash for o in others}
    assert len({config.hash, *hashes}) == 4


def test_video_tokens_are_those_of_the_parts(video_stats):
    config = load_config(video_patches.Config, overrides=["size=32", f"statistics={video_stats}"])
    extractor, x = video_patches.build(config), frames(7, 32, 32, 3)
    tokens = extractor(x.numpy())
    scaled = (x.numpy() / 255 - [0.2, 0.3, 0.4]) / [0.5, 0.6, 0.7]
    wanted = patchify_video(torch.from_numpy(scaled)[None])[0].numpy()
    np.testing.assert_allclose(tokens, wanted, atol=1e-5)
    assert tokens.shape == (8, 2304) == (extractor.frames(7), extractor.dim)
    assert extractor.rate / extractor.shift == 6 / 3 * 4 and extractor.middle / extractor.rate == 0.25
    config.norm = "zscore"
    tokens = video_patches.build(config)(x.numpy())
    np.testing.assert_allclose(tokens.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(tokens.std(1), 1, atol=1e-4)


def test_statistics_of_other_features_are_refused_by_hash(cmvn, video_stats, tmp_path):
    for override in ("snip_edges=true", "bins=40", "low_freq=60"):
        with pytest.raises(InputError, match=f"other features .configuration {config_hash(LFBE)}"):
            load_config(audio_patches.Config, overrides=[f"statistics={cmvn}", override])
    for override in ("size=64", "fps=5"):
        with pytest.raises(InputError, match=config_hash(FrameConfig(6.0, 32))):
            load_config(video_patches.Config, overrides=["size=32", f"statistics={video_stats}", override])
    with pytest.raises(InputError, match="nowhere.json: no such statistics; speechkit features"):
        load_config(audio_patches.Config, overrides=[f"statistics={tmp_path / 'nowhere.json'}"])
    with pytest.raises(InputError, match="other features"):  # one file in the place of the other
        load_config(video_patches.Config, overrides=[f"statistics={cmvn}"])
    with pytest.raises(InputError, match="0 means and 0 deviations for 64 bins"):
        load_config(audio_patches.Config)
    record = json.loads(cmvn.read_text())
    cmvn.write_text(json.dumps({**record, "speaker_cmvn": True}))
    with pytest.raises(InputError, match="other features"):
        load_config(audio_patches.Config, overrides=[f"statistics={cmvn}"])
    cmvn.write_text(json.dumps({"mean": [0.0] * 64, "std": [1.0] * 64}))
    with pytest.raises(InputError, match="tell of which features"):
        load_config(audio_patches.Config, overrides=[f"statistics={cmvn}"])
