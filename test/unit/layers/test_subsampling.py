"""Subsampling: shapes, lengths, and which input frames an output frame sees."""

import pytest
import torch

from speechkit.errors import InputError
from speechkit.layers.masks import zero_padding
from speechkit.layers.subsampling import Config, build

CASES = [Config("conv2d", factor, 3) for factor in (1, 2, 4, 6, 8)] + [
    Config("stack", f) for f in (1, 2, 4, 6, 8)
]
WHOLE = [Config("vgg"), Config("none", 1)]  # every utterance has a frame, however short
PUBLISHED = {  # ESPnet's mask arithmetic: strided slices of the valid frames
    1: lambda n: len(range(n)[:-4]),
    2: lambda n: len(range(n)[:-2:2][:-2]),
    4: lambda n: len(range(n)[:-2:2][:-2:2]),
    6: lambda n: len(range(n)[:-2:2][:-4:3]),
    8: lambda n: len(range(n)[:-2:2][:-2:2][:-2:2]),
}


@pytest.mark.parametrize("config", CASES + WHOLE, ids=str)
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


def test_a_linear_layer_is_left_out_on_request():
    assert build(Config("vgg"), 83, 4).output_dim == build(Config("none", 1), 83, 4).output_dim == 4
    assert build(Config("vgg"), 83, 4, linear=False).output_dim == 128 * 21
    assert build(Config("none", 1), 83, 4, linear=False).output_dim == 83


def test_vgg_on_padded_batches_is_as_on_utterances_alone():
    """What a GPU computes at once, computed so on the CPU."""
    module = build(Config("vgg"), 20, 4, linear=False).double()
    lengths = torch.tensor([23, 9, 17, 1, 0])
    x = torch.randn(5, 23, 20).double()
    packed, packing = module(x, lengths)
    at_once = module._convolve(zero_padding(x, lengths), lengths)
    torch.testing.assert_close(packing.pack(at_once), packed, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "factor", "only"), [("vgg", 2, 4), ("none", 4, 1)])
def test_a_kind_with_one_factor_refuses_others(kind, factor, only):
    with pytest.raises(ValueError, match=f"factor={factor}: kind={kind} has factor={only}"):
        Config(kind, factor)
