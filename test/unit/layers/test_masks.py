"""Masks and packing."""

import pytest
import torch

from speechkit.layers.masks import Packing, padding_mask, zero_padding


def test_padding_mask_is_true_at_padding():
    mask = padding_mask(torch.tensor([2, 0, 3]))
    assert mask.tolist() == [[False, False, True], [True, True, True], [False, False, False]]
    assert padding_mask(torch.tensor([1]), 3).tolist() == [[False, True, True]]


def test_zero_padding_removes_nan_and_keeps_the_rest():
    x = torch.full((2, 3, 2), float("nan"))
    x[0, :1], x[1, :3] = 1, 2
    zeroed = zero_padding(x, torch.tensor([1, 3]))
    assert zeroed[..., 0].tolist() == [[1, 0, 0], [2, 2, 2]]
    assert x[0, 1].isnan().all()


@pytest.mark.parametrize("lengths", [[3, 1, 0, 5, 5], [4, 4], [0, 0], [7]])
def test_pack_and_unpack(lengths):
    packing = Packing(torch.tensor(lengths))
    x = torch.randn(len(lengths), max(lengths) + 2, 3)
    packed = packing.pack(x)
    assert torch.equal(packed, torch.cat([row[:n] for row, n in zip(x, lengths)]))
    assert torch.equal(packing.unpack(packed), zero_padding(x, packing.lengths)[:, : max(lengths)])
    assert packing.positions.tolist() == [t for n in lengths for t in range(n)]
    assert packing.utterance.tolist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    assert packing.offsets.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert packing.offsets.dtype == torch.int32


def test_a_packing_moves_with_its_indices():
    packing = Packing(torch.tensor([3, 0, 2]))
    assert packing.to(torch.device("cpu")) is packing
    packing.positions, packing.utterance, packing.offsets  # noqa: B018 (made and kept)
    moved = packing.to(torch.device("meta"))
    parts = (moved.lengths, moved.index, moved.positions, moved.utterance, moved.offsets)
    assert {part.device.type for part in parts} == {"meta"}
    assert (moved.sizes, moved.total, moved.width) == ([3, 0, 2], 5, 3)
    assert packing.index.tolist() == [0, 1, 2, 6, 7]


def test_groups_are_runs_of_equal_length():
    assert Packing(torch.tensor([4, 4, 0, 4, 2, 2, 2])).groups == [(2, 4), (1, 4), (3, 2)]
