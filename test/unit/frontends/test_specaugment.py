"""SpecAugment: what is masked, how often, and that an utterance alone decides about it."""

import pytest
import torch

from speechkit.frontends.specaugment import Config, SpecAugment, spans, time_warp, uniforms


def augment(lengths, keys=None, bins=40, frames=None, **options):
    lengths = torch.tensor(lengths)
    keys = torch.arange(len(lengths)) + 1000 if keys is None else torch.tensor(keys)
    x = torch.ones(len(lengths), frames or int(lengths.max()), bins)
    return SpecAugment(Config(**options)).train()(x, lengths, keys)


def test_nothing_happens_in_evaluation():
    x = torch.randn(2, 50, 20)
    assert SpecAugment(Config()).eval()(x, torch.tensor([50, 30]), torch.tensor([1, 2])) is x


@pytest.mark.parametrize("options", [{}, {"time_warp": 5}, {"time_masks_per_frame": 0.04}])
def test_an_utterance_is_augmented_the_same_in_any_batch(options):
    lengths, keys = torch.tensor([120, 80, 200, 31]), torch.tensor([7, -3, 2**62, 9])
    x = torch.randn(4, 200, 40)
    module = SpecAugment(Config(**options)).train()
    together = module(x, lengths, keys)
    for i, length in enumerate(lengths.tolist()):
        alone = module(x[i : i + 1, :length], lengths[i : i + 1], keys[i : i + 1])
        assert torch.equal(alone[0], together[i, :length])
    assert not torch.equal(together, module(x, lengths, keys + 1))
    torch.rand(3)  # the global generator plays no part
    assert torch.equal(together, module(x, lengths, keys))


def test_masks_are_whole_rows_and_columns_within_their_widths():
    options = {"freq_masks": 1, "freq_width": 9, "time_masks": 1, "time_width": 30, "time_ratio": 0.2}
    masked = augment([100] * 300, **options) == 0
    freq, time = masked.all(dim=1), masked.all(dim=2)
    assert torch.equal(masked, freq[:, None, :] | time[:, :, None])
    for hidden, widest in ((freq, 9), (time, 20)):
        widths = hidden.sum(1)
        edges = (hidden[:, 1:] != hidden[:, :-1]).sum(1) + hidden[:, 0].int() + hidden[:, -1].int()
        assert set(edges[widths > 0].tolist()) == {2}  # one span
        assert set(widths.tolist()) == set(range(widest + 1))  # every width occurs, none beyond


def test_time_masks_stay_within_the_utterance_and_follow_its_length():
    masked = augment([40, 400] * 200, freq_masks=0, time_masks=1, time_ratio=0.1, time_width=100, frames=400)
    widths = (masked == 0).all(2).sum(1).view(-1, 2)
    assert not (masked[::2, 40:] == 0).any()
    assert widths.max(0).values.tolist() == [4, 40]
    assert 1.6 < widths[:, 0].float().mean() < 2.4 and 17 < widths[:, 1].float().mean() < 23


def test_places_are_even():
    hidden = augment([100] * 2000, freq_masks=0, time_masks=1, time_ratio=0.1, time_width=10)[..., 0] == 0
    part = hidden.float().mean(0)
    assert part[45:55].mean() == pytest.approx(5.3 / 100, abs=0.01)  # mean width 5, starts on 95.5 places
    assert abs(part[:50].mean() - part[50:].mean()) < 0.01


def test_number_of_masks_grows_with_length_up_to_its_limit():
    options = {"freq_masks": 0, "time_masks": 0, "time_masks_per_frame": 0.04, "max_time_masks": 3}
    masked = augment([20, 60, 1000] * 100, time_ratio=1.0, time_width=5, frames=1000, **options) == 0
    time = masked.all(2)
    spans = ((time[:, 1:] & ~time[:, :-1]).sum(1) + time[:, 0]).view(-1, 3)
    assert spans.max(0).values.tolist() == [0, 2, 3]


def test_draws_of_an_utterance_depend_on_its_key_alone():
    rows = uniforms(torch.tensor([5, 6, 5]), 8)
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    assert rows.min() >= 0 and rows.max() < 1


def test_spans_never_leave_the_columns():
    draws = torch.tensor([[0.999999, 0.0]])
    hidden = spans(draws, torch.full((1, 2), 0.999999), torch.tensor([[5]]), torch.tensor([8]), 10)
    assert hidden.tolist() == [[False] * 3 + [True] * 5 + [False] * 2]


def test_warp_keeps_ends_order_and_padding():
    lengths = torch.tensor([50, 80, 9])
    ramp = torch.arange(80.0).expand(3, 80)[..., None].repeat(1, 1, 2)
    draws = torch.tensor([[0.3, 0.9], [0.7, 0.1], [0.5, 0.9]], dtype=torch.float64)
    warped = time_warp(ramp, lengths, draws, 5)[..., 0]
    for row, length in zip(warped[:2], (50, 80)):
        assert row[0] == 0 and row[length - 1] == pytest.approx(length - 1, abs=1e-4)
        assert (row[1:length] > row[: length - 1]).all()
        assert torch.equal(row[length:], ramp[0, length:, 0])
    assert torch.equal(warped[2], ramp[2, :, 0])  # too short to be warped
    # the point 5 + 0.3 * 39 = 16.7 moved by (2 * 0.9 - 1) * 4 = 3.2 frames, to 19.9
    assert torch.lerp(warped[0, 19], warped[0, 20], 0.9).item() == pytest.approx(16.7, abs=0.05)


@pytest.mark.parametrize("options", [{"time_ratio": 1.5}, {"freq_masks": -1}, {"time_masks": 30}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Config(**options)
