"""Streamed mean and variance statistics."""

import numpy as np
import pytest

from speechkit.frontends.cmvn import FLOOR, Statistics


@pytest.fixture
def frames():
    # a mean a million times the deviation: sums of squares in float32 would lose it all
    return (1e4 + 1e-2 * np.random.default_rng(0).standard_normal((1000, 5))).astype(np.float64)


def test_streaming_and_merging_equal_the_whole(frames):
    left, right = Statistics(5), Statistics(5)
    for part in np.split(frames[:600], [1, 1, 50, 599]):  # one of them empty
        left.add(part)
    right.add(frames[600:])
    left.merge(right)
    left.merge(Statistics(5))
    assert left.frames == 1000
    np.testing.assert_allclose(left.mean, frames.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(left.std, frames.std(axis=0), rtol=1e-9)


def test_dictionary_and_application(frames):
    statistics = Statistics(5)
    statistics.add(frames)
    values = statistics.to_dict()
    assert values["frames"] == 1000 and len(values["mean"]) == len(values["std"]) == 5
    normalised = statistics.apply(frames)
    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(normalised.std(axis=0), 1, atol=1e-5)


def test_a_constant_dimension_stays_finite():
    statistics = Statistics(2)
    statistics.add(np.full((10, 2), 3.0))
    assert (statistics.std == FLOOR).all()
    assert (statistics.apply(np.full((4, 2), 3.0)) == 0).all()
    assert Statistics(2).to_dict() == {"mean": [0.0, 0.0], "std": [FLOOR, FLOOR], "frames": 0}
