"""Batch plans against brute force over everything they promise."""

from __future__ import annotations

import numpy as np
import pytest

from speechkit.data.plan import BatchPlan, Config, deal, hash_ids
from speechkit.errors import InputError
from speechkit.hashing import mix, seed_of

SPEEDS = (0.9, 1.0, 1.1)


def utterances(n=500, seed=0):
    draw = np.random.default_rng(seed)
    return [f"utt{i:05d}" for i in range(n)], draw.gamma(3, 2, n) + 0.3


def make(n=500, config=None, seed=1, **options):
    ids, seconds = utterances(n)
    return BatchPlan(hash_ids(ids), seconds, config or Config(seconds=40, micro_batches=4), seed, **options)


def epoch_rows(plan, epoch=0):
    begin = sum(plan.updates(e) for e in range(epoch))
    return [plan.row(update) for update in range(begin, begin + plan.updates(epoch))]


def splitmix64(state):
    """The published generator (Steele et al. 2014, Vigna's splitmix64.c): one step and its finaliser."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mix_is_chained_splitmix64():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the first output for seed 0
    for parts in ((0,), (1, 2), (2**63 + 5, 7, 2**64 - 1)):
        state = 0
        for part in parts:
            state = splitmix64(state ^ part)
        assert int(mix(*parts)) == state and seed_of(*parts) == state >> 1
    assert mix(3, np.arange(4)).tolist() == [int(mix(3, i)) for i in range(4)]
    assert int(mix(1, 2)) != int(mix(2, 1))


def test_every_utterance_once_in_every_epoch_and_every_update_complete():
    plan = make(speeds=SPEEDS)
    for epoch in range(3):
        rows = epoch_rows(plan, epoch)
        assert all(len(row) == 4 for row in rows)
        used = np.concatenate([part.utterances for row in rows for part in row])
        assert sorted(used.tolist()) == list(range(500))
        assert {part.epoch for row in rows for part in row} == {epoch}


@pytest.mark.parametrize("quadratic, most", [(0.0, 256), (0.05, 256), (0.0, 3)])
def test_no_micro_batch_is_above_the_budget_and_few_are_far_below(quadratic, most):
    config = Config(seconds=40, quadratic=quadratic, max_utterances=most)
    plan = make(2000, config, speeds=SPEEDS)
    costs = []
    for (part,) in epoch_rows(plan):
        lengths = plan.seconds[part.utterances] / part.speeds
        cost = len(lengths) * (lengths.max() + quadratic * lengths.max() ** 2)
        assert cost <= 40 or len(lengths) == 1
        assert len(lengths) <= most
        assert part.length == pytest.approx(lengths.sum())
        assert part.padded == pytest.approx(len(lengths) * lengths.max())
        costs.append(cost if len(lengths) < most else 40)
    assert np.mean(costs) > 0.75 * 40


def test_padding_is_a_few_percent():
    plan = make(5000, Config(seconds=100), speeds=SPEEDS)
    parts = [part for row in epoch_rows(plan) for part in row]
    assert 1 - sum(p.length for p in parts) / sum(p.padded for p in parts) < 0.06


def test_the_plan_depends_on_seed_epoch_and_data_and_not_on_their_order():
    plan, again = make(speeds=SPEEDS), make(speeds=SPEEDS)
    hashes = [plan.hash(epoch) for epoch in range(3)]
    assert hashes == [again.hash(epoch) for epoch in range(3)] and len(set(hashes)) == 3
    assert make(speeds=SPEEDS, seed=2).hash(0) != hashes[0]
    assert make(499, speeds=SPEEDS).hash(0) != hashes[0]
    ids, seconds = utterances()
    order = np.random.default_rng(3).permutation(500)
    shuffled = BatchPlan(hash_ids(ids)[order], seconds[order], plan.config, 1, speeds=SPEEDS)
    assert shuffled.hash(0) == hashes[0]
    for a, b in zip(plan.row(3), shuffled.row(3), strict=True):
        assert [ids[i] for i in a.utterances] == [ids[order[i]] for i in b.utterances]
        assert a.keys.tolist() == b.keys.tolist()


def test_speeds_are_drawn_evenly_per_utterance_and_epoch():
    plan = make(3000, speeds=SPEEDS)
    drawn = {}
    for epoch in range(2):
        speeds = np.concatenate([part.speeds for row in epoch_rows(plan, epoch) for part in row])
        for speed in SPEEDS:
            assert 900 < (speeds == speed).sum() < 1100
        chosen = {
            int(u): s for row in epoch_rows(plan, epoch) for p in row for u, s in zip(p.utterances, p.speeds)
        }
        drawn[epoch] = chosen
    same = sum(drawn[0][u] == drawn[1][u] for u in drawn[0])
    assert 900 < same < 1100  # one in three by chance


def test_order_and_company_change_between_epochs():
    plan = make(2000, Config(seconds=100))
    groups = [{frozenset(p.utterances.tolist()) for row in epoch_rows(plan, e) for p in row} for e in (0, 1)]
    assert len(groups[0] & groups[1]) < 0.02 * len(groups[0])
    lengths = [np.mean(plan.seconds[row[0].utterances]) for row in epoch_rows(plan)]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.2


def test_seeking_finds_the_rows_that_walking_finds():
    plan = make(speeds=SPEEDS)
    walked = [part.keys.tolist() for epoch in range(4) for row in epoch_rows(plan, epoch) for part in row]
    fresh = make(speeds=SPEEDS)
    total = sum(plan.updates(e) for e in range(4))
    jumped = {u: [part.keys.tolist() for part in fresh.row(u)] for u in reversed(range(total))}
    assert [keys for u in range(total) for keys in jumped[u]] == walked
    assert fresh.locate(plan.updates(0)) == (1, 0) and fresh.locate(plan.updates(0) - 1)[0] == 0


@pytest.mark.parametrize("world", [1, 2, 4])
def test_dealing_gives_every_rank_as_many_micro_batches(world):
    row = make().row(0)
    shares = [deal(row, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {4 // world}
    for rank, share in enumerate(shares):
        for i, part in enumerate(share):
            assert part is row[rank + i * world]


@pytest.mark.parametrize("n", [4, 5, 6, 7, 9, 31])
def test_the_last_update_is_filled_by_halving(n):
    """As many utterances as fit, for any remainder: complete rows, nothing dropped, nothing twice."""
    plan = make(n, Config(seconds=1000, micro_batches=4))
    (row,) = epoch_rows(plan)
    assert len(row) == 4 and all(len(part.utterances) for part in row)
    assert sorted(u for part in row for u in part.utterances) == list(range(n))
    sizes = sorted(len(part.utterances) for part in row)
    assert sizes[-1] <= 2 * sizes[0] + 1


def test_single_utterances_that_cannot_be_halved_are_used_twice():
    plan = make(5, Config(seconds=0.1, micro_batches=4))
    used = [u for row in epoch_rows(plan) for part in row for u in part.utterances.tolist()]
    assert len(used) == 8 and set(used) == set(range(5))


def drawn(plan, epoch=0):
    """How often each utterance is used in an epoch."""
    used = [part.utterances for row in epoch_rows(plan, epoch) for part in row]
    return np.bincount(np.concatenate(used), minlength=len(plan.ids))


def languages(hours, n=100_000, seed=0):
    """Utterances of languages with such shares of the hours, whose mean lengths differ."""
    random = np.random.default_rng(seed)
    means = np.linspace(3, 9, len(hours))
    counts = np.array(hours) / means
    sources = random.choice(len(hours), n, p=counts / counts.sum())
    seconds = random.uniform(0.5, 1.5, n) * means[sources]
    return hash_ids([f"u{i}" for i in range(n)]), seconds, sources


HOURS = {"en": 1350, "es": 168, "fr": 353, "it": 90}


def test_languages_are_drawn_by_the_published_shares():
    """XLSR's p_l ~ n_l^0.5 for English, Spanish, French and Italian, over 1e5 draws."""
    anchors = np.array([0.4712, 0.1662, 0.2409, 0.1217])
    ids, seconds, sources = languages(list(HOURS.values()))
    config = Config(seconds=2000, source_power=0.5)
    times = drawn(BatchPlan(ids, seconds, config, 1, sources=sources))
    assert times.sum() == len(ids)  # as many draws as utterances
    found = np.bincount(sources, seconds * times) / (seconds * times).sum()
    assert (abs(found / anchors - 1) < 0.01).all()


def test_shares_of_utterances():
    anchors = np.array([0.4712, 0.1662, 0.2409, 0.1217])
    counts = np.array(list(HOURS.values())) * 50
    sources = np.repeat(np.arange(4), counts)
    seconds = np.linspace(1, 9, 4)[sources]  # which does not matter here
    ids = hash_ids([f"u{i}" for i in range(len(sources))])
    config = Config(seconds=5000, source_power=0.5, source_count="utterances")
    times = drawn(BatchPlan(ids, seconds, config, 1, sources=sources))
    assert times.sum() == len(ids)
    assert (abs(np.bincount(sources, times) / times.sum() - anchors) < 1e-4).all()


@pytest.mark.parametrize("count", ["hours", "utterances"])
def test_power_one_leaves_shares_as_they_are_and_power_zero_makes_them_equal(count):
    ids, seconds, sources = languages([8, 2, 1], 20_000)
    amount = seconds if count == "hours" else np.ones(len(seconds))
    for power, wanted in ((1.0, None), (0.999999, None), (0.0, np.full(3, 1 / 3))):
        config = Config(seconds=1000, source_power=power, source_count=count)
        times = drawn(BatchPlan(ids, seconds, config, 1, sources=sources))
        found = np.bincount(sources, amount * times) / (amount * times).sum()
        expected = np.bincount(sources, amount) / amount.sum() if wanted is None else wanted
        np.testing.assert_allclose(found, expected, atol=0.005)
        assert power != 1 or (times == 1).all()


def test_utterances_of_a_source_are_used_equally_often_and_others_more_in_the_next_epoch():
    ids, seconds, sources = languages([8, 2, 1], 5000)
    plan = BatchPlan(ids, seconds, Config(seconds=1000, source_power=0.3), 1, sources=sources)
    times = [drawn(plan, epoch) for epoch in range(2)]
    for source in range(3):
        used = times[0][sources == source]
        assert used.max() - used.min() <= 1
    assert (times[0] != times[1]).any()
    keys = [key for row in epoch_rows(plan) for part in row for key in part.keys.tolist()]
    assert len(set(keys)) == len(keys)  # a repeated utterance is augmented anew


def test_draws_are_the_same_again_and_for_any_order_of_the_data():
    ids, seconds, sources = languages([8, 2, 1], 3000)
    config = Config(seconds=300, source_power=0.5)
    plan = BatchPlan(ids, seconds, config, 1, sources=sources)
    order = np.random.default_rng(1).permutation(3000)
    again = BatchPlan(ids[order], seconds[order], config, 1, sources=sources[order])
    assert [plan.hash(e) for e in range(3)] == [again.hash(e) for e in range(3)]
    assert BatchPlan(ids, seconds, config, 2, sources=sources).hash(0) != plan.hash(0)


def test_a_source_of_which_nothing_is_left_does_not_matter():
    ids, seconds, sources = languages([8, 2], 1000)
    config = Config(seconds=300, source_power=0.5)
    plan = BatchPlan(ids, seconds, config, 1, sources=sources * 2)  # nothing of source 1
    assert plan.hash(0) == BatchPlan(ids, seconds, config, 1, sources=sources).hash(0)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_batches_of_one_language(micro_batches):
    ids, seconds, sources = languages([8, 2, 1], 3000)
    plans = {}
    for batches in ("mixed", "single"):
        config = Config(seconds=60, micro_batches=micro_batches, source_power=0.5, source_batches=batches)
        plans[batches] = BatchPlan(ids, seconds, config, 1, sources=sources)
    found = {
        batches: [len(set(sources[part.utterances])) for row in epoch_rows(plan) for part in row]
        for batches, plan in plans.items()
    }
    assert set(found["single"]) == {1} and max(found["mixed"]) == 3
    assert (drawn(plans["single"]) == drawn(plans["mixed"])).all()
    assert len(found["single"]) < 1.3 * len(found["mixed"])
    order = [sources[part.utterances[0]] for row in epoch_rows(plans["single"]) for part in row]
    assert (np.diff(order) != 0).mean() > 0.3  # not one language after the other


def test_evaluation_is_one_pass_shortest_first():
    plan = make(100, Config(seconds=30), shuffle=False, speeds=SPEEDS)
    order = [u for row in epoch_rows(plan) for part in row for u in part.utterances.tolist()]
    assert order == np.argsort(plan.seconds, kind="stable").tolist()
    assert all((part.speeds == 1).all() for row in epoch_rows(plan) for part in row)


def test_the_costliest_micro_batch_is_the_costliest():
    plan = make(300, Config(seconds=40, quadratic=0.1))
    costs = []
    for (part,) in epoch_rows(plan):
        lengths = plan.seconds[part.utterances]
        costs.append(len(lengths) * (lengths.max() + 0.1 * lengths.max() ** 2))
    worst = plan.costliest(0)
    lengths = plan.seconds[worst.utterances]
    assert len(lengths) * (lengths.max() + 0.1 * lengths.max() ** 2) == pytest.approx(max(costs))


def test_nothing_to_plan_is_an_error():
    with pytest.raises(InputError, match="no usable utterance"):
        make(0)
    with pytest.raises(InputError, match="plan.micro_batches=4, but the data set has only 3"):
        make(3)
