"""Progressive masks: anchors of the schedule, coverage, borders and guards."""

import math

import numpy as np
import pytest
import torch

from speechkit.layers.av_mask import Config, Stage, draw_mask, stage, validation_stage


def draw(lengths, now, patches=1, keys=None, **options):
    lengths = torch.tensor(lengths)
    keys = torch.arange(len(lengths)) if keys is None else torch.tensor(keys)
    return draw_mask(lengths, patches, now, Config(**options), keys, 7)


# ---- the schedule ---------------------------------------------------------------------------------------


def test_anchors_of_the_published_schedule():
    assert stage(Config(), 0) == Stage(1, pytest.approx(0.15, abs=1e-12))
    assert stage(Config(), 5000).probability == pytest.approx(0.2598, abs=5e-5)
    assert stage(Config(), 9999).probability == pytest.approx(0.44995, abs=5e-6)
    assert stage(Config(), 10000) == Stage(3, pytest.approx(0.15, abs=1e-12))
    widths = [stage(Config(), 10000 * k).width for k in range(8)]
    assert widths == [1, 3, 5, 7, 9, 11, 11, 11]
    assert stage(Config(), 50000).probability == pytest.approx(0.15)  # the last stage begins
    assert stage(Config(), 59999).probability < 0.45
    assert {stage(Config(), update) for update in (60000, 60001, 10**9)} == {Stage(11, 0.45)}


def test_anchors_with_steps_of_one():
    config = Config(width_step=1)
    assert [stage(config, 10000 * k).width for k in range(12)] == [*range(1, 12), 11]
    assert stage(config, 100000).probability == pytest.approx(0.15)
    assert stage(config, 109999).probability < 0.45
    assert stage(config, 110000) == Stage(11, 0.45)


def test_an_update_is_the_same_whenever_it_comes():
    now = stage(Config(), 12345)
    assert now == Stage(3, pytest.approx(0.15 * 3**0.2345))
    for update in range(12000, 12345, 50):  # a run that comes from earlier updates
        draw([90, 20], stage(Config(), update))
    assert torch.equal(draw([90, 20], stage(Config(), 12345)), draw([90, 20], now))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("kind", ["exp", "linear", "saturating"])
def test_the_probability_rises_within_a_stage_and_the_width_over_all(kind, step):
    config = Config(width_step=step, p_schedule=kind, stage_updates=100)
    found = [stage(config, update) for update in range(1300)]
    for before, after in zip(found, found[1:]):
        assert after.width >= before.width
        assert after.probability > before.probability or after.width > before.width or after == before
    assert max(s.width for s in found) == 11 and max(s.probability for s in found) == 0.45
    assert min(s.probability for s in found) == pytest.approx(0.15)


def test_other_schedules_of_the_probability():
    assert stage(Config(p_schedule="linear"), 5000).probability == pytest.approx(0.3)
    half = 0.45 - 0.30 * math.exp(-2.5)
    assert stage(Config(p_schedule="saturating"), 5000).probability == pytest.approx(half)


def test_the_last_width_may_be_even():
    config = Config(max_width=4, stage_updates=10)
    assert [stage(config, 10 * k).width for k in range(5)] == [1, 3, 4, 4, 4]
    assert stage(config, 30) == Stage(4, 0.45)


# ---- the sampler ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "probability", "covered"), [(1, 0.15, 0.15), (3, 0.45, 0.83), (11, 0.15, 0.83), (4, 0.2, 0.59)]
)
def test_coverage_of_inner_tokens(width, probability, covered):
    mask = draw([5000] * 40, Stage(width, probability))[:, 20:-20]
    expected = 1 - (1 - probability) ** width
    assert expected == pytest.approx(covered, abs=0.006)
    assert mask.double().mean().item() == pytest.approx(expected, abs=0.01)


def test_the_literal_late_schedule_hides_practically_everything():
    assert 1 - draw([5000] * 40, Stage(11, 0.45)).double().mean().item() == pytest.approx(0.0014, abs=5e-4)


@pytest.mark.parametrize(("width", "share"), [(1, 0.3), (3, 0.45), (11, 0.15), (6, 0.8)])
def test_coverage_semantics_hide_the_share_that_is_asked_for(width, share):
    mask = draw([5000] * 40, Stage(width, share), prob_semantics="coverage")
    assert mask[:, 20:-20].double().mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("width", "before", "after"), [(1, 0, 0), (5, 2, 2), (4, 1, 2), (2, 0, 1)])
def test_spans_lie_around_their_centres(width, before, after):
    single, wide = draw([400] * 50, Stage(1, 0.03)), draw([400] * 50, Stage(width, 0.03))
    centres = np.argwhere(single.numpy())
    assert len(centres) > 400
    for row in range(50):
        places = centres[centres[:, 0] == row][:, 1]
        hidden = {p for c in places for p in range(c - before, c + after + 1) if 0 <= p < 400}
        assert set(wide[row].nonzero().flatten().tolist()) == hidden


def test_spans_touch_no_padding_and_rows_do_not_depend_on_their_batch():
    lengths = [50, 3, 0, 17, 1, 2]
    mask = draw(lengths, Stage(11, 0.3))
    assert mask.shape == (6, 50) and mask.dtype == torch.bool
    for i, length in enumerate(lengths):
        assert not mask[i, length:].any()
        assert torch.equal(mask[i, :length], draw([length], Stage(11, 0.3), keys=[i])[0])
    assert not torch.equal(mask[0], draw([50], Stage(11, 0.3), keys=[9])[0])


@pytest.mark.parametrize("axis", ["sequence", "time", "tube"])
@pytest.mark.parametrize("now", [Stage(1, 1e-6), Stage(11, 1.0), Stage(11, 0.45), Stage(3, 0.5)])
def test_guards_hold_whatever_the_probability(axis, now):
    slices, patches, most = [40, 2, 7, 1, 0], 6, 0.8
    mask = draw(slices, now, patches, mask_axis=axis, max_coverage=most)
    for i, count in enumerate(slices):
        total, hidden = count * patches, int(mask[i].sum())
        assert not mask[i, total:].any()
        if count > 1:
            assert 0 < hidden <= max(most * total, patches if axis == "time" else 1) < total
    free = draw(slices, now, patches, mask_axis=axis)
    assert (free.sum(1) < torch.tensor(slices).clamp(min=1) * patches).all()


def test_the_guard_takes_back_whole_spans_and_no_more_than_it_must():
    free, held = (draw([600] * 20, Stage(7, 0.3), max_coverage=most) for most in (1.0, 0.6))
    assert free.double().mean() > 0.85 and not (held & ~free).any()
    assert ((held.sum(1) <= 360) & (held.sum(1) > 350)).all()
    for row in held[:, :-7].int():  # a hidden token has hidden neighbours: nothing was taken out of a span
        inner = row[7:].tolist()
        runs = "".join(map(str, inner)).strip("1").split("0")
        assert all(len(run) == 0 or len(run) >= 7 for run in runs)


def test_axes_of_video():
    now, grid = Stage(3, 0.1), (30, 6)
    time = draw([30], now, 6, mask_axis="time").view(grid)
    assert (time.all(1) == time.any(1)).all() and time.any()
    tube = draw([30], now, 6, mask_axis="tube").view(grid)
    assert not (tube.all(1) == tube.any(1)).all()
    centres = draw([30], Stage(1, 0.1), 6, mask_axis="tube").view(grid)
    after = centres.clone()  # three slices of the same patch
    after[1:] |= centres[:-1]
    after[:-1] |= centres[1:]
    assert torch.equal(tube, after)
    flat = draw([30], now, 6, mask_axis="sequence")
    assert torch.equal(flat, draw([180], now))


def test_validation_is_fixed():
    assert validation_stage(Config(valid_width=5, valid_probability=0.2)) == Stage(5, 0.2)


@pytest.mark.parametrize("options", [{"first_probability": 0.5}, {"max_width": 0}, {"max_coverage": 1.5}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Config(**options)
