"""Log-mels of ESPnet's kind; they are compared with ESPnet itself in test/parity/test_convert_espnet.py."""

import numpy as np
import pytest

from speechkit.config import load_config
from speechkit.frontends.logmel import Config, build, mel_filters


@pytest.mark.parametrize("samples", [0, 1, 256, 257, 1000, 16001])
def test_as_many_frames_as_said(samples):
    extractor = build(Config())
    found = extractor(np.random.default_rng(1).normal(size=samples).astype(np.float32))
    assert found.shape == (extractor.frames(samples), 80) and found.dtype == np.float32
    assert len(found) == (0 if samples <= 256 else 1 + samples // 128)


@pytest.mark.parametrize("htk", [False, True])
def test_a_tone_is_loudest_where_it_lies(htk):
    config = Config(htk=htk, low_freq=50.0, high_freq=7000.0)
    filters = mel_filters(config)
    assert filters.shape == (257, 80) and (filters >= 0).all() and (filters.sum(axis=0) > 0).all()
    hertz = 1500.0
    wave = np.sin(2 * np.pi * hertz * np.arange(8000) / 16000).astype(np.float32)
    loudest = int(build(config)(wave)[20].argmax())
    assert filters[round(hertz * 512 / 16000), loudest] > 0


def test_filters_have_area_one():
    areas = mel_filters(Config(bins=20, fft=4096)).sum(axis=0) * 16000 / 4096
    np.testing.assert_allclose(areas, 1, atol=0.02)


@pytest.mark.parametrize(("normalise", "std"), [("mean", None), ("utterance", 1.0)])
def test_an_utterance_is_normalised(normalise, std):
    wave = np.random.default_rng(1).normal(size=5000).astype(np.float32)
    found = build(Config(normalise=normalise))(wave)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    if std is not None:
        np.testing.assert_allclose(found.std(axis=0), std, atol=1e-3)


@pytest.mark.parametrize(
    "values", ({"fft": 511}, {"window": 600}, {"low_freq": 9000.0}, {"high_freq": 9000.0})
)
def test_impossible_values_are_refused(values):
    with pytest.raises(ValueError, match="|".join(values)):
        Config(**values)


def test_a_configuration_can_name_them(tmp_path):
    from speechkit.train.run import RunConfig

    assert load_config(RunConfig, features={"name": "logmel", "shift": 160}).features == Config(shift=160)
