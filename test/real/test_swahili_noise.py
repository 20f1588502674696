"""Sixty read sentences of which one file is cut short, and real noises and room responses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from speechkit.bin.__main__ import main
from speechkit.data.audio import audio_info, read_audio
from speechkit.data.augment import Augment, Config, Noise, Reverb
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.errors import BadSample

TRUNCATED = "200701-101457-146"


def format_command(source, out, *more):
    return [str(word) for word in ("format", "--data", source, "--out", out, *more)]


def test_a_truncated_file_stops_an_evaluation_set(corpus, data_dir, tmp_path, capsys):
    source = data_dir(corpus("swahili"), "all")
    (tmp_path / "dump").mkdir()
    assert main(format_command(source, tmp_path / "dump/all", "--kind", "evaluation")) == 1
    told = capsys.readouterr().err
    assert f"{TRUNCATED}: truncated audio" in told
    assert "the header promises 87483 samples, the file holds 87142" in told
    assert not list((tmp_path / "dump").iterdir())


def test_a_truncated_file_is_left_out_of_a_training_set(corpus, data_dir, speechkit, tmp_path):
    every = {one.id: one for one in corpus("swahili")}
    source, out = data_dir(list(every.values()), "all"), tmp_path / "dump/all"
    speechkit(*format_command(source, out, "--kind", "train", "--max-drop", "0.05"))
    made = read_data_dir(out)
    assert made.utterances == sorted(every.keys() - {TRUNCATED})
    for utterance in made.utterances:
        samples = int(made.tables["utt2num_samples"][utterance])
        assert abs(samples - 16000 * every[utterance].seconds) <= 8.001, utterance  # three decimals
    fates = [json.loads(line) for line in (out / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {fate["utterance"] for fate in fates} == set(every)
    (dropped,) = [fate for fate in fates if not fate["kept"]]
    assert dropped["utterance"] == TRUNCATED and dropped["reason"] == "truncated audio"


def test_a_stricter_limit_refuses_the_training_set(corpus, data_dir, tmp_path, capsys):
    source = data_dir(corpus("swahili"), "all")
    assert main(format_command(source, tmp_path / "dump/all", "--max-drop", "0.01")) == 1
    assert TRUNCATED in capsys.readouterr().err and not list((tmp_path / "dump").iterdir())


@pytest.fixture
def sounds(corpus):
    """Files of noise and of room responses."""
    every = corpus("noise_rir")
    noises = [str(one.path) for one in every if one.split == "noise"]
    return noises, [str(one.path) for one in every if one.split == "rir"]


@pytest.fixture
def speech(corpus):
    return read_audio(str(corpus("swahili")[0].path))


def decibels(signal, noise):
    return 10 * np.log10(np.mean(np.square(signal, dtype=np.float64)) / np.mean(np.square(noise)))


def test_every_noise_mixes_at_the_ratio_drawn(sounds, speech):
    for path in sounds[0]:
        augment = Augment(Config(noise=Noise([path], 1.0, [10.0, 10.0])))
        for key in (1, 2**63 + 5):
            mixed = augment(speech, key)
            assert mixed.shape == speech.shape and np.isfinite(mixed).all(), path
            assert abs(decibels(speech, mixed.astype(np.float64) - speech) - 10) < 0.05, path


def test_every_room_keeps_length_power_and_onset(sounds, speech):
    for path in sounds[1]:
        wet = Augment(Config(reverb=Reverb([path], 1.0)))(speech, key=7)
        assert wet.shape == speech.shape and np.isfinite(wet).all(), path
        assert abs(decibels(speech, wet)) < 0.01, path
        assert np.abs(wet - speech).max() > 1e-4, path  # something happened


def test_a_response_of_eight_channels_gives_its_first(corpus, speech):
    (one,) = [one for one in corpus("noise_rir") if one.id == "lhotse_real_8ch"]
    assert audio_info(str(one.path)).channels == 8
    with pytest.raises(BadSample, match="several channels"):
        read_audio(str(one.path))
    first, second = (read_audio(str(one.path), channel=channel) for channel in (0, 1))
    assert np.abs(first - second).max() > 0
    wet = Augment(Config(reverb=Reverb([str(one.path)], 1.0)))(speech, key=3)
    start = int(np.abs(first).argmax())
    expected = np.convolve(speech.astype(np.float64), first)[start : start + len(speech)]
    expected *= np.sqrt(np.mean(np.square(speech, dtype=np.float64)) / np.mean(expected**2))
    np.testing.assert_allclose(wet, expected, atol=1e-5)


def test_augmentation_depends_on_the_key_alone(corpus, data_dir, sounds, speech):
    noises = [one for one in corpus("noise_rir") if one.split == "noise"]
    folder = data_dir(noises, "noise")  # a data directory is a source as files are
    config = Config(speeds=[0.9, 1.0, 1.1], noise=Noise([str(folder)], 0.8), reverb=Reverb(sounds[1], 0.8))
    keys, one, other = list(range(100, 124)), Augment(config), Augment(config)
    made = {key: one(speech, key, 0.9) for key in keys}
    for key in reversed(keys):
        np.testing.assert_array_equal(other(speech, key, 0.9), made[key])
    different = {sound.tobytes() for sound in made.values()}
    assert len(different) >= 20  # about one in 25 gets neither room nor noise
    assert {len(sound) for sound in made.values()} == {round(len(speech) / 0.9)}
