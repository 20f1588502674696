"""Speed, rooms, noise and gain against their definitions."""

import pickle

import numpy as np
import pytest
from factories import make_data_dir, make_wave, waveform

from speechkit.config import load_config
from speechkit.data.augment import (
    Augment,
    Config,
    Gain,
    Noise,
    Reverb,
    add_noise,
    add_room,
    change_speed,
    speed_samples,
    synthetic_room,
)
from speechkit.errors import InputError


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1, 0.85, 1.25, 0.333, 1.999])
def test_speed_samples_is_exact(speed):
    lengths = [1, 2, 3, 7, 10, 11, 99, 100, 101, 5000, 9999, 10000, 16001, 47777, *range(20000, 20040)]
    assert [len(change_speed(np.zeros(n, np.float32), speed)) for n in lengths] == [
        speed_samples(n, speed) for n in lengths
    ]
    both = speed_samples(np.array(lengths), np.full(len(lengths), speed))
    assert both.tolist() == [speed_samples(n, speed) for n in lengths]


def test_speed_moves_the_pitch():
    tone = np.sin(2 * np.pi * 400 * np.arange(16000) / 16000).astype(np.float32)
    fast = change_speed(tone, 1.25)
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert len(fast) == 12800
    assert abs(spectrum.argmax() * 16000 / len(fast) - 500) < 2


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5])
def test_noise_is_at_the_ratio_asked_for(snr):
    speech, noise = waveform(1, seed=1), waveform(1, seed=2)
    mixed = add_noise(speech, noise, snr, 16000)
    added = mixed - speech
    assert abs(10 * np.log10(np.mean(speech**2) / np.mean(added**2)) - snr) < 0.01
    assert np.corrcoef(added, noise)[0, 1] > 0.999


def test_room_is_a_convolution_aligned_at_the_direct_path():
    speech, response = waveform(0.2, seed=3), np.zeros(300, np.float32)
    response[50], response[250] = 0.8, 0.4
    wet = add_room(speech, response)
    expected = np.convolve(speech, response)[50 : 50 + len(speech)]
    expected *= np.sqrt(np.mean(speech**2) / np.mean(expected**2))
    assert wet.shape == speech.shape and wet.dtype == np.float32
    np.testing.assert_allclose(wet, expected, atol=1e-5)


def test_synthetic_room_has_its_t60_and_ratio():
    room = synthetic_room(np.random.default_rng(0), t60=0.5, direct=6.0, rate=16000).astype(np.float64)
    assert len(room) == 8000 and room[0] == 1
    tail = room[1:]
    assert abs(-10 * np.log10(np.sum(tail**2)) - 6) < 1e-3
    decibels = 10 * np.log10([np.mean(part**2) for part in np.array_split(tail, 20)])
    slope = np.polyfit((np.arange(20) + 0.5) * len(tail) / 20 / 16000, decibels, 1)[0]
    assert abs(-60 / slope - 0.5) < 0.03


@pytest.fixture
def everything(tmp_path):
    noises = make_data_dir(tmp_path / "noise", utterances=3, seconds=[0.3, 2.0, 5.0])
    room = make_wave(tmp_path / "room.wav", 0.1, seed=9, channels=2)
    return Config(
        speeds=[0.9, 1.0, 1.1],
        noise=Noise([str(noises)], 0.5, [3.0, 10.0]),
        reverb=Reverb([str(room)], 0.5),
        gain=Gain(0.5),
    )


def test_same_key_same_sound_in_any_order_and_worker(everything):
    speech = waveform(1, seed=4)
    keys = [0, 1, 2, 3, 2**62, -(2**63), -1]
    first = Augment(everything)
    one = [first(speech, key, 1.1) for key in keys]
    second = pickle.loads(pickle.dumps(Augment(everything)))
    two = [second(speech, key, 1.1) for key in reversed(keys)][::-1]
    for a, b in zip(one, two):
        assert np.array_equal(a, b)
        assert a.dtype == np.float32 and len(a) == speed_samples(len(speech), 1.1)
    assert len({a.tobytes() for a in one}) >= 5  # at a half each, some may stay untouched


def test_probabilities_are_shares_of_utterances():
    augment = Augment(Config(gain=Gain(0.3)))
    speech = waveform(0.05, seed=5)
    changed = np.mean([not np.array_equal(augment(speech, key), speech) for key in range(2000)])
    assert abs(changed - 0.3) < 0.03


def test_nothing_asked_nothing_done():
    speech = waveform(0.5, seed=6)
    np.testing.assert_array_equal(Augment(Config())(speech, 5), speech)


def test_synthetic_rooms_without_sources_and_silence_stay_finite():
    augment = Augment(Config(reverb=Reverb(probability=1.0)))
    speech = waveform(0.5, seed=7)
    wet = augment(speech, 1)
    assert not np.array_equal(wet, speech) and not np.array_equal(wet, augment(speech, 2))
    assert np.isfinite(augment(np.zeros(1000, np.float32), 1)).all()


@pytest.mark.parametrize(
    "override,said",
    [
        ("speeds=[]", "empty"),
        ("speeds=[0.12345]", "speeds"),
        ("speeds=[1.0001]", "three decimals"),
        ("noise.probability=0.5", "sources"),
        ("noise.probability=2", "probability"),
        ("noise.snr=[10, 5]", "lowest, highest"),
        ("reverb.t60=[0.2]", "lowest, highest"),
        ("gain.decibel=[0, 1]", "did you mean 'decibels'"),
    ],
)
def test_bad_options_are_named(override, said):
    with pytest.raises(InputError, match=said):
        load_config(Config, overrides=[override])


def test_missing_source_is_named(tmp_path):
    with pytest.raises(InputError, match="no_such"):
        Augment(Config(noise=Noise([str(tmp_path / "no_such")], 1.0)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="wav.scp"):
        Augment(Config(noise=Noise([str(tmp_path / "empty")], 1.0)))
