"""Convolutions as matrix products and through frequencies, against torch.nn.functional.conv1d."""

import pytest
import torch
import torch.nn.functional as F

from speechkit.frontends.waveform_conv import WaveformConv, normalise_waveform, normalised_convolution
from speechkit.layers.frame_convolution import frame_convolution
from speechkit.layers.masks import Packing
from speechkit.layers.positional_conv import PositionalConv
from speechkit.layers.spectral_conv import spectral_convolution


def gradients(function, *tensors):
    """Value and gradients, in float64."""
    tensors = [None if t is None else t.detach().clone().requires_grad_() for t in tensors]
    out = function(*tensors)
    wanted = [t for t in tensors if t is not None]
    return [out, *torch.autograd.grad(out.sin().sum(), wanted)]


def assert_equal(mine, expected, tolerance=1e-11):
    for a, b in zip(mine, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (10, 5), (5, 1), (7, 3), (1, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_frame_convolution(batch, kernel, stride, bias):
    x = torch.randn(batch, 31, 4, dtype=torch.float64)
    weight = torch.randn(6, 4, kernel, dtype=torch.float64)
    b = torch.randn(6, dtype=torch.float64) if bias else None

    def reference(x, weight, b):
        return F.conv1d(x.transpose(1, 2), weight, b, stride).transpose(1, 2)

    mine = gradients(lambda *args: frame_convolution(*args, stride), x, weight, b)
    assert_equal(mine, gradients(reference, x, weight, b))


@pytest.mark.parametrize("lengths", [None, [40, 3, 17]])
def test_normalised_convolution_is_convolution_then_group_norm(lengths):
    x = torch.randn(3, 205, 1, dtype=torch.float64) + 3  # far from mean 0
    conv, norm = torch.nn.Conv1d(1, 6, 10, 5).double(), torch.nn.GroupNorm(6, 6).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    sizes = lengths or [40] * 3

    def rows(out):
        return torch.cat([row[:size] for row, size in zip(out, sizes)])

    def mine(weight, gain, shift):
        conv.weight.data, norm.weight.data, norm.bias.data = weight.data, gain.data, shift.data
        return rows(normalised_convolution(x, conv, norm, lengths and torch.tensor(lengths)))

    def reference(weight, gain, shift):
        out = F.conv1d(x.transpose(1, 2), weight, conv.bias, 5)
        alone = [F.group_norm(row[None, :, :size], 6, gain, shift) for row, size in zip(out, sizes)]
        return torch.cat([row[0].t() for row in alone])

    parameters = conv.weight, norm.weight, norm.bias
    value = mine(*parameters)
    own = torch.autograd.grad(value.sin().sum(), parameters)
    assert_equal([value, *own], gradients(reference, *parameters))


@pytest.mark.parametrize(("kernel", "groups"), [(128, 4), (127, 2), (9, 1)])
def test_spectral_convolution(kernel, groups):
    packing = Packing(torch.tensor([140, 0, 1, 129, 64, 300]))
    x = torch.randn(packing.total, 8, dtype=torch.float64)
    weight = torch.randn(8, 8 // groups, kernel, dtype=torch.float64)
    bias = torch.randn(8, dtype=torch.float64)

    def reference(x, weight, bias):
        pieces = [piece.t()[None] for piece in x.split(packing.sizes) if len(piece)]
        outs = [F.conv1d(p, weight, bias, padding=kernel // 2, groups=groups)[0].t() for p in pieces]
        return torch.cat([out[: p.size(2)] for out, p in zip(outs, pieces)])

    mine = gradients(lambda *args: spectral_convolution(*args, packing), x, weight, bias)
    assert_equal(mine, gradients(reference, x, weight, bias), 1e-9)


def test_spectral_convolution_in_fp32_is_as_exact_as_a_direct_one():
    packing = Packing(torch.tensor([200, 90]))
    module = PositionalConv(32, 128, 4)
    x = torch.randn(packing.total, 32)
    mine = module(x, packing)
    exact = module.double()(x.double(), packing)
    assert (mine - exact).abs().max() < 2e-6 * exact.abs().max()


def test_frames_for_samples():
    """The length table of wav2vec 2.0's seven convolutions, and 2,000 lengths by running them."""
    table = {399: 0, 400: 1, 719: 1, 720: 2, 16000: 49, 80000: 249, 250000: 781, 320000: 999}
    conv = WaveformConv([4] * 7, [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2], False, "layer")
    assert (conv.window, conv.stride) == (400, 320)
    assert conv.output_lengths(torch.tensor(list(table))).tolist() == list(table.values())
    lengths = torch.randint(0, 12000, (2000,), generator=torch.Generator().manual_seed(4))
    ones = [torch.ones(1, 1, layer.conv.kernel_size[0]) for layer in conv.conv_layers]
    x = torch.zeros(1, 1, 12000)
    for length, said in zip(lengths.tolist(), conv.output_lengths(lengths).tolist()):
        if length < 400:
            assert said == 0
            continue
        frames = x[:, :, :length]
        for weight, layer in zip(ones, conv.conv_layers):
            frames = F.conv1d(frames, weight, stride=layer.conv.stride)
        assert frames.size(2) == said
    with torch.no_grad():
        _, packing = conv(x[0].expand(100, -1), lengths[:100])
    assert packing.sizes == conv.output_lengths(lengths[:100]).tolist()


@pytest.mark.parametrize(("kind", "epsilon"), [("fairseq", 1e-5), ("hf", 1e-7)])
def test_waveforms_are_normalised_over_their_own_samples(kind, epsilon):
    lengths = torch.tensor([500, 0, 31, 470])
    x = 0.003 * torch.randn(4, 500, dtype=torch.float64) + 0.5  # quiet, with an offset; padding is filled
    out = normalise_waveform(x, lengths, kind)
    for row, normal, length in zip(x, out, lengths.tolist()):
        own = row[:length]
        if length:
            expected = (own - own.mean()) / (own.var(correction=0) + epsilon).sqrt()
            torch.testing.assert_close(normal[:length], expected)
        assert not normal[length:].any()
    rms = out[0].square().mean().sqrt().item()  # for quiet speech the two are not the same
    assert rms == pytest.approx({"fairseq": 0.69, "hf": 0.99}[kind], abs=0.03)


def test_waveforms_are_left_alone_but_for_their_padding():
    x, lengths = torch.randn(2, 50), torch.tensor([50, 20])
    out = normalise_waveform(x, lengths, "none")
    assert torch.equal(out[0], x[0]) and torch.equal(out[1, :20], x[1, :20]) and not out[1, 20:].any()
