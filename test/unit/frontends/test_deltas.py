"""Derivatives over frames, and the 39 coefficients that HuBERT's first iteration clusters."""

import numpy as np
import pytest
from factories import waveform

from speechkit.config import load_config
from speechkit.errors import InputError
from speechkit.frontends import mfcc
from speechkit.frontends.deltas import add_deltas


def slow_deltas(x):
    """The regression formula, a frame at a time, ends repeated."""
    out = np.zeros_like(x)
    for t in range(len(x)):
        for n in (1, 2):
            out[t] += n * (x[min(t + n, len(x) - 1)] - x[max(t - n, 0)])
    return out / 10


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 40])
def test_against_the_formula(frames):
    x = np.random.default_rng(0).standard_normal((frames, 3)).astype(np.float32)
    first = slow_deltas(x)
    expected = np.concatenate([x, first, slow_deltas(first)], axis=1)
    np.testing.assert_allclose(add_deltas(x, 2), expected, atol=1e-6)
    np.testing.assert_array_equal(add_deltas(x, 0), x)


def test_a_ramp_has_a_constant_slope():
    ramp = np.arange(30, dtype=np.float32)[:, None] * np.array([0.5, -2.0], np.float32)
    made = add_deltas(ramp, 2)
    np.testing.assert_allclose(made[2:-2, 2:4], np.tile([0.5, -2.0], (26, 1)), atol=1e-5)
    np.testing.assert_allclose(made[4:-4, 4:], 0, atol=1e-5)


def test_mfccs_with_derivatives():
    speech = waveform(1, seed=2)
    extractor = mfcc.build(mfcc.Config(use_energy=False, deltas=2))
    made = extractor(speech)
    static = mfcc.build(mfcc.Config(use_energy=False))(speech)
    assert made.shape == (98, 39) == (1 + (16000 - 400) // 160, extractor.dim)
    np.testing.assert_array_equal(made, add_deltas(static, 2))
    for samples in (0, 399, 400, 560):
        part = extractor(speech[:samples])
        assert part.shape == (extractor.frames(samples), 39) and np.isfinite(part).all()


def test_c0_and_its_derivatives_when_the_scale_changes():
    """Full scale 1 instead of 32768 shifts C0 alone, by the DCT of a constant."""
    speech = waveform(1, seed=3)
    loud, quiet = (
        mfcc.build(mfcc.Config(use_energy=False, deltas=2, scale=scale))(speech) for scale in (32768.0, 1.0)
    )
    shift = np.zeros(39)
    shift[0] = np.sqrt(23) * np.log(32768.0**2)
    np.testing.assert_allclose(loud - quiet, np.tile(shift, (98, 1)), atol=0.05)


def test_normalised_after_the_derivatives():
    made = mfcc.build(mfcc.Config(deltas=1, normalise="utterance"))(waveform(2, seed=4))
    np.testing.assert_allclose(made.std(axis=0), 1, atol=1e-4)


def test_an_order_that_is_none():
    with pytest.raises(InputError, match="deltas=-1"):
        load_config(mfcc.Config, overrides=["deltas=-1"])
