"""The gold rate: its schedule, its draws from keys, and what is mixed."""

from __future__ import annotations

import pytest
import torch

from speechkit.fusion.gold_rate import Config, GoldRate, mix


def test_rate_falls_in_a_straight_line():
    gold = GoldRate(Config())
    assert [gold.rate(update) for update in (0, 9_999, 10_000)] == [0.9] * 3
    assert gold.rate(50_000) == pytest.approx(0.55)
    assert gold.rate(90_000) == pytest.approx(0.2) == gold.rate(10**7)
    rates = [gold.rate(update) for update in range(0, 120_000, 1000)]
    assert rates == sorted(rates, reverse=True)
    upstream = [max((1 - max(u - 1000, 0) / 8000) * 0.7, 0) + 0.2 for u in range(0, 12_000, 500)]
    fast = GoldRate(Config(start=1000, updates=8000))
    assert [fast.rate(u) for u in range(0, 12_000, 500)] == pytest.approx(upstream)


def test_share_of_gold_slots_is_the_rate():
    gold, keys = GoldRate(Config()), torch.arange(500) * 7919
    lengths = torch.full((500,), 40)
    for update in (0, 50_000, 90_000):
        rate = gold.rate(update)
        share = gold.picks(keys, lengths, update).double().mean().item()
        assert abs(share - rate) < 3 * (rate * (1 - rate) / 20_000) ** 0.5
    assert gold.picks(keys, lengths, 0).double().mean(0).min() > 0.8  # every slot is gold for most


def test_a_row_is_a_function_of_its_key_and_gold_slots_only_become_fewer():
    gold, keys = GoldRate(Config()), torch.tensor([11, 5, 11, -3])
    lengths = torch.tensor([9, 4, 6, 0])
    whole = gold.picks(keys, lengths, 60_000)
    assert whole.shape == (4, 9) and torch.equal(whole[0, :6], whole[2, :6])
    for row, length in enumerate(lengths.tolist()):
        assert not whole[row, length:].any()
        alone = gold.picks(keys[row : row + 1], lengths[row : row + 1], 60_000)
        assert torch.equal(alone[0], whole[row, :length])
    long, many = torch.full((4,), 300), torch.arange(4)
    early, late = (gold.picks(many, long, update) for update in (20_000, 70_000))
    assert not (late & ~early).any() and late.sum() < early.sum()
    assert not torch.equal(early[0], early[1])


def test_mixture_takes_each_slot_from_one_side_and_its_gradient_goes_there():
    words, vectors = torch.ones(2, 3, 4), torch.full((2, 3, 4), 5.0, requires_grad=True)
    picks = torch.tensor([[True, False, True], [False, False, True]])
    mixed = mix(words, vectors, picks)
    assert mixed[..., 0].tolist() == [[1, 5, 1], [5, 5, 1]]
    mixed.sum().backward()
    assert vectors.grad[..., 0].tolist() == [[0, 1, 0], [1, 1, 0]]


def test_only_what_is_sure_is_taken_for_said():
    probabilities = torch.tensor([[[0.1, 0.81, 0.09], [0.8, 0.1, 0.1], [0.3, 0.3, 0.4]]])
    ids, sure = GoldRate(Config()).sure(probabilities.double().log())
    assert ids.tolist() == [[1, 0, 2]]
    assert sure.tolist()[0][0] is True and sure.tolist()[0][2] is False
    assert GoldRate(Config(confidence=0.35)).sure(probabilities.log())[1].all()


@pytest.mark.parametrize("values", [{"high": 1.1}, {"low": 0.95}, {"start": -1}, {"updates": 0}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}="):
        Config(**values)
