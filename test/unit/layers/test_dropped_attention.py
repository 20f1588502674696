"""Attention with dropout: against the definition, with the same weights dropped, and its gradients."""

import math

import pytest
import torch

from speechkit.layers.dropout import dropout, dropped_places
from speechkit.layers.dropped_attention import dropped_attention

SIZES = 2, 3, 7, 5, 4  # utterances, heads, queries, keys, dimensions of a head


def tensors():
    batch, heads, queries, keys, size = SIZES
    shapes = [(batch, heads, frames, size) for frames in (queries, keys, keys)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def by_definition(q, k, v, rate):
    """The same draws, applied to the weights themselves."""
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))).softmax(-1)
    keep = torch.ones(weights.numel(), dtype=torch.float64)
    keep[dropped_places(weights.numel(), rate)] = 0
    return (weights * keep.view_as(weights) / (1 - rate)) @ v


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.8])
def test_value_and_gradients_are_those_of_the_definition(rate):
    q, k, v = tensors()
    results = []
    for function in (dropped_attention, by_definition):
        torch.manual_seed(3)
        out = function(q, k, v, rate)
        results.append([out, *torch.autograd.grad(out.sin().sum(), (q, k, v))])
    for mine, expected in zip(*results):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_every_weight_is_dropped_as_often_as_asked():
    count, rate = 64, 0.1
    hits = torch.zeros(count)
    for _ in range(4000):
        hits[dropped_places(count, rate)] += 1
    deviation = (4000 * rate * (1 - rate)) ** 0.5
    assert ((hits - 4000 * rate).abs() < 4.5 * deviation).all()
    assert hits.sum().item() == pytest.approx(4000 * rate * count, abs=4 * deviation * count**0.5)


def test_places_are_increasing_within_range_and_follow_the_seed():
    torch.manual_seed(1)
    places = dropped_places(100000, 0.3)
    assert (places.diff() > 0).all() and places[0] >= 0 and places[-1] < 100000
    torch.manual_seed(1)
    assert torch.equal(places, dropped_places(100000, 0.3))
    assert not torch.equal(places, dropped_places(100000, 0.3))
    assert len(dropped_places(0, 0.3)) == 0


def test_distances_between_dropped_values_are_geometric():
    distances = dropped_places(2_000_000, 0.25).diff()
    for distance in range(1, 8):
        expected = 0.25 * 0.75 ** (distance - 1)
        assert (distances == distance).float().mean().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_in_place_gives_the_same_and_leaves_shared_gradients_alone(inplace):
    x = torch.randn(40, 30, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(2)
    total = x + dropout(x * 1.0, 0.4, inplace)  # the sum hands one gradient tensor to both of its terms
    total.sum().backward()
    torch.manual_seed(2)
    keep = torch.ones(x.numel(), dtype=torch.float64)
    keep[dropped_places(x.numel(), 0.4)] = 0
    keep = keep.view_as(x) / 0.6
    torch.testing.assert_close(total, x * (1 + keep))
    torch.testing.assert_close(x.grad, 1 + keep)
