"""Subsampling: shapes, lengths, and which input frames an output frame sees."""

import pytest
import torch

from speechkit.errors import InputError
from speechkit.layers.subsampling import Config, build

CASES = [Config("conv2d", factor, 3) for factor in (1, 2, 4, 6, 8)] + [
    Config("stack", f) for f in (1, 2, 4, 6, 8)
]
PUBLISHED = {  # ESPnet's mask arithmetic: strided slices of the valid frames
    1: lambda n: len(range(n)[:-4]),
    2: lambda n: len(range(n)[:-2:2][:-2]),
    4: lambda n: len(range(n)[:-2:2][:-2:2]),
    6: lambda n: len(range(n)[:-2:2][:-4:3]),
    8: lambda n: len(range(n)[:-2:2][:-2:2][:-2:2]),
}


@pytest.mark.parametrize("config", CASES, ids=str)
def test_lengths_equal_forward_for_every_length(config):
    module = build(config, 80, 4)
    lengths = torch.arange(0, 130)
    x = torch.randn(130, 129, 80)
    packed, packing = module(x, lengths)
    assert torch.equal(packing.lengths, module.output_lengths(lengths))
    assert len(packed) == packing.total
    for n in (7, 8, 31, 64, 129):
        alone, _ = module(x[n : n + 1, :n], lengths[n : n + 1])
        torch.testing.assert_close(alone, packed.split(packing.sizes)[n], rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", PUBLISHED)
def test_conv2d_lengths_are_the_published_ones(factor):
    lengths = torch.arange(0, 400)
    ours = build(Config("conv2d", factor, 3), 80, 4).output_lengths(lengths)
    assert ours.tolist() == [PUBLISHED[factor](n) for n in lengths.tolist()]


@pytest.mark.parametrize("config", CASES, ids=str)
def test_output_frame_sees_its_window_and_nothing_else(config):
    module = build(config, 80, 4).double()
    x = torch.randn(1, 60, 80, dtype=torch.float64, requires_grad=True)
    packed, packing = module(x, torch.tensor([60]))
    for frame in (0, 1, packing.total - 1):
        (gradient,) = torch.autograd.grad(packed[frame].sin().sum(), x, retain_graph=True)
        seen = gradient[0].any(dim=1).nonzero().squeeze(1)
        assert seen.min() >= frame * module.factor
        assert seen.max() < frame * module.factor + module.window <= 60


def test_too_few_features_are_refused():
    with pytest.raises(InputError, match="6 features"):
        build(Config("conv2d", 4, 3), 6, 4)
