"""Schedules against their published shapes."""

from __future__ import annotations

import math

import pytest

from speechkit.config import load_kind
from speechkit.train.schedule import SCHEDULES


def factors(name, updates=100, **options):
    module = load_kind(SCHEDULES, name)
    factor = module.build(module.Config(**options), updates)
    return [factor(n) for n in range(updates)]


def test_tri_stage_warms_up_holds_and_decays_exponentially():
    values = factors("tri_stage", warmup=0.1, hold=0.4, initial=0.01, final=0.05)
    assert values[0] == pytest.approx(0.01) and values[5] == pytest.approx(0.01 + 0.99 * 0.5)
    assert values[10:51] == [1.0] * 41
    assert values[75] == pytest.approx(math.sqrt(0.05))
    ratios = [b / a for a, b in zip(values[50:], values[51:])]
    assert ratios == pytest.approx([0.05 ** (1 / 50)] * 49)


def test_tri_stage_decays_linearly_on_request():
    """XLSR's fine-tuning: 2 k, 8 k and 10 k of 20 k updates."""
    values = factors("tri_stage", updates=200, warmup=0.1, hold=0.4, decay="linear", final=0.0)
    assert values[20:101] == [1.0] * 81
    assert values[100:] == pytest.approx([1 - n / 100 for n in range(100)])
    assert factors("tri_stage", updates=200, decay="linear", final=0.2)[150] == pytest.approx(0.6)
    with pytest.raises(ValueError, match="final=0"):
        factors("tri_stage", final=0)


def test_tri_stage_can_stop_on_the_way_down():
    """HuBERT's 10 h: warm-up 8, no hold, decay 72 to 0.05; only 25 updates are made."""
    values = factors("tri_stage", updates=25, warmup=0.32, hold=0.0, end=3.2)
    assert values[8:] == pytest.approx([0.05 ** (n / 72) for n in range(17)])
    with pytest.raises(ValueError, match="end=0.4"):
        factors("tri_stage", end=0.4)


def test_warmup_linear_is_a_triangle():
    values = factors("warmup_linear", warmup=0.2)
    assert values[:20] == pytest.approx([(n + 1) / 20 for n in range(20)])
    assert values[20:] == pytest.approx([(100 - n) / 80 for n in range(20, 100)])


def test_noam_decays_with_the_inverse_square_root_from_its_peak():
    values = factors("noam", updates=400, warmup=25)
    assert max(values) == values[24] == 1
    # Vaswani et al. 2017, eq. (3), up to a factor: min(n^-0.5, n * warmup^-1.5)
    wanted = [min((n + 1) ** -0.5, (n + 1) * 25**-1.5) for n in range(400)]
    assert values == pytest.approx([w / wanted[24] for w in wanted])


def test_constant_with_and_without_warmup():
    assert factors("constant", 5) == [1.0] * 5
    assert factors("constant", 5, warmup=4) == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("updates", [1, 2, 3])
def test_tiny_runs_have_a_rate(name, updates):
    assert all(0 < value <= 1 for value in factors(name, updates))
