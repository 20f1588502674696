"""Global CMVN."""

import pytest
import torch

from speechkit.errors import InputError
from speechkit.layers.cmvn import GlobalCMVN


def test_normalises_to_zero_mean_and_unit_variance():
    x = 3 * torch.randn(500, 4) + torch.tensor([1.0, 2.0, 3.0, 4.0])
    out = GlobalCMVN(x.mean(0).tolist(), x.std(0, unbiased=False).tolist())(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(4), rtol=0, atol=1e-5)


def test_a_constant_dimension_stays_finite_and_values_travel_with_the_state():
    cmvn = GlobalCMVN([2.0, 0.0], [0.0, 1.0])
    assert cmvn(torch.tensor([2.0, 5.0])).tolist() == [0.0, 5.0]
    assert set(cmvn.state_dict()) == {"mean", "scale"} and not list(cmvn.parameters())


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([0.0], [1.0, 1.0], "1 means and 2"),
        ([float("nan")], [1.0], "finite"),
        ([0.0], [-1.0], "not negative"),
    ],
)
def test_broken_statistics_are_refused(mean, std, said):
    with pytest.raises(InputError, match=said):
        GlobalCMVN(mean, std)
