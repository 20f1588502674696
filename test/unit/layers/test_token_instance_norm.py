"""Instance norm over tokens: PyTorch's on unpadded input, runs by themselves, single tokens."""

import pytest
import torch

from speechkit.layers.masks import Packing
from speechkit.layers.token_instance_norm import TOKEN_NORMS, TokenInstanceNorm


def make(dim=6):
    norm = TokenInstanceNorm(dim).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    return norm


def test_it_is_pytorchs_on_unpadded_input():
    norm, x = make(), torch.randn(4, 9, 6, dtype=torch.float64)
    theirs = torch.nn.InstanceNorm1d(6, affine=True).double()
    theirs.load_state_dict(norm.state_dict())
    expected = theirs(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(norm(x.flatten(0, 1), [9] * 4), expected.flatten(0, 1), rtol=0, atol=1e-12)
    norm.eval()
    torch.testing.assert_close(norm(x.flatten(0, 1), [9] * 4), expected.flatten(0, 1), rtol=0, atol=1e-12)


def test_content_of_padding_and_neighbours_do_not_matter():
    norm, lengths = make(), torch.tensor([5, 0, 7, 2])
    x = torch.randn(4, 9, 6, dtype=torch.float64)
    packing = Packing(lengths)
    together = packing.unpack(norm(packing.pack(x), packing.sizes))
    spoilt = x.clone()
    for row, length in zip(spoilt, lengths):
        row[length:] = float("nan")
    assert torch.equal(together, packing.unpack(norm(packing.pack(spoilt), packing.sizes)))
    for i, length in enumerate(lengths.tolist()):
        alone = norm(x[i, :length], [length])
        torch.testing.assert_close(together[i, :length], alone, rtol=0, atol=1e-12)


def test_runs_of_one_modality_are_the_same_with_and_without_the_other():
    norm, audio, video = make(), *(torch.randn(n, 6, dtype=torch.float64) for n in (7, 12))
    both = torch.cat([video, audio])
    assert torch.equal(norm(both, [12, 7])[12:], norm(audio, [7]))
    assert not torch.allclose(norm(both, [19])[12:], norm(audio, [7]))


def test_a_single_token_is_scaled_and_moved_and_nothing_stays_nothing():
    norm, x = make(), torch.randn(3, 6, dtype=torch.float64)
    out = norm(x, [0, 1, 2, 0])
    torch.testing.assert_close(out[0], x[0] * norm.weight + norm.bias)
    assert out.isfinite().all() and norm(x[:0], [0, 0]).shape == (0, 6)
    norm(x.requires_grad_(), [1, 2]).sin().sum().backward()
    assert x.grad.isfinite().all() and x.grad[0].any()


@pytest.mark.parametrize("name", TOKEN_NORMS)
def test_both_norms_are_called_alike(name):
    norm, x = TOKEN_NORMS[name](6), torch.randn(8, 6)
    assert norm(x, [3, 5]).shape == x.shape and torch.equal(norm(x[:3], [3]), norm(x, [3, 5])[:3])
