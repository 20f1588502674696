"""Whose lattice a transducer's loss uses, and what is said where warp-rnnt cannot work."""

from __future__ import annotations

import pytest
import torch

from speechkit.errors import InputError
from speechkit.integrations import warp_rnnt
from speechkit.losses import transducer_lattice


def test_ours_is_used_unless_it_is_asked_for():
    blank, label = torch.randn(2, 4, 3), torch.randn(2, 4, 2)
    lengths, sizes = torch.tensor([4, 3]), torch.tensor([2, 1])
    wanted = transducer_lattice.occupations(blank, label, lengths, sizes)
    assert warp_rnnt.choose("ours") is transducer_lattice.occupations
    for a, b in zip(warp_rnnt.choose("auto")(blank, label, lengths, sizes), wanted):
        assert torch.equal(a, b)


def test_it_must_be_installed(monkeypatch):
    monkeypatch.setattr(warp_rnnt, "installed", lambda: False)
    with pytest.raises(InputError, match="tools/setup.sh warp-rnnt"):
        warp_rnnt.choose("warp_rnnt")


def test_it_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(warp_rnnt, "installed", lambda: True)
    lattice = warp_rnnt.choose("warp_rnnt")
    with pytest.raises(InputError, match="works on GPUs, not on cpu"):
        lattice(torch.randn(1, 2, 2), torch.randn(1, 2, 1), torch.tensor([2]), torch.tensor([1]))
