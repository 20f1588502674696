"""Rectangles of lattices: cut, packed, shrunk and put back, each node once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speechkit.losses.lattice_parts import Rectangle, pack, pieces, put, shrink, take, visits, whole, within

LENGTHS, SIZES = [40, 3, 1], [6, 0, 2]


@pytest.mark.parametrize("nodes", [1, 10, 50, 10_000])
def test_every_node_is_in_one_part(nodes):
    times = torch.zeros(3, 40, 7)
    values = torch.arange(3 * 40 * 7.0).view(3, 40, 7)
    copy = torch.zeros_like(values)
    for part in pack(whole(LENGTHS, SIZES), nodes):
        count = sum(r.nodes for r in part)
        assert count <= nodes or (len(part) == 1 and part[0].shape[0] == 1)
        put(copy, part, take(values, part))
        for r, block in pieces(part, torch.ones(count)):
            r.of(times).add_(block)
    for i, (t, u) in enumerate(zip(LENGTHS, SIZES)):
        assert torch.all(times[i, :t, : u + 1] == 1) and times[i].sum() == t * (u + 1)
        assert torch.equal(copy[i, :t, : u + 1], values[i, :t, : u + 1])


def test_windows_are_rectangles_of_frames_that_have_the_same():
    starts = torch.tensor([[0, 0, 1, 1, 1, 4], [0, 0, 0, 0, 0, 0]])
    found = within(starts, 3, [6, 2], [6, 1])
    assert found == [
        Rectangle(0, 0, 2, 0, 3),
        Rectangle(0, 2, 5, 1, 4),
        Rectangle(0, 5, 6, 4, 7),
        Rectangle(1, 0, 2, 0, 2),
    ]


def test_what_is_not_visited_is_cut_off():
    torch.manual_seed(3)
    of_blank, of_label = torch.zeros(3, 40, 7), torch.zeros(3, 40, 7)
    of_blank[0, 3, 2] = -1.0
    of_label[0, 30, 4] = 1e-4
    of_label[0, 18, 5] = 1e-9  # beside 1 less than a rounding error
    of_blank[1, 1, 0] = 1e-9  # beside nothing more than one
    of_blank[2, 0, 1] = torch.nan
    seen = visits(of_blank, of_label)
    assert np.argwhere(seen).tolist()[:3] == [[0, 3, 2], [0, 30, 4], [1, 1, 0]] and seen[2].all()
    kept = [s for r in whole(LENGTHS, SIZES) for s in shrink(r, seen)]
    assert kept == [
        Rectangle(0, 0, 16, 2, 3),
        Rectangle(0, 16, 32, 4, 5),
        Rectangle(1, 0, 3, 0, 1),
        Rectangle(2, 0, 1, 0, 3),
    ]
    values = torch.rand(40, 7)
    assert torch.equal(kept[1].inside(Rectangle(0, 10, 40, 2, 7), values[10:40, 2:7]), values[16:32, 4:5])
