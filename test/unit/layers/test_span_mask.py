"""Span masks: published expectations, ranges, purity of rows, and every kind of length."""

import numpy as np
import pytest
import torch

from speechkit.layers.span_mask import Config, channel_mask, span_mask


def draw(length, rows, config=None, salt=0):
    return span_mask(torch.full((rows,), length), config or Config(), torch.arange(rows), salt).numpy()


def runs(row):
    """(start, length) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return list(zip(edges[::2], edges[1::2] - edges[::2]))


@pytest.mark.parametrize("probability", [0.5, 0.65, 0.75, 0.8])
def test_masked_share_of_long_utterances_is_the_published_one(probability):
    share = draw(5000, 100, Config(probability)).mean()
    expected = 1 - (1 - probability / 10) ** 10
    assert share == pytest.approx(expected, rel=0.01)


def test_every_frame_is_masked_sometimes_and_at_least_one_never_is():
    hidden = draw(60, 10_000)
    assert hidden.any(0).all() and not hidden.all(1).any()
    # A frame in the middle lies in 10 of the 51 equally likely starts; the number of spans is 3 or 4.
    counts = np.floor(0.65 * 60 / 10 + np.random.default_rng(0).random(10**5))
    missed = np.mean([np.prod([(41 - i) / (51 - i) for i in range(int(n))]) for n in counts[:2000]])
    assert hidden[:, 20:40].mean() == pytest.approx(1 - missed, rel=0.02)


def test_fairseq_range_never_masks_the_last_frame():
    hidden = draw(60, 5000, Config(start_range="fairseq"))
    assert not hidden[:, -1].any() and hidden[:, :-1].any(0).all()


def test_number_of_spans_is_floor_of_mean_plus_even_draw():
    # One frame long, spans of 64 starts are visible one by one: 0.3 * 64 = 19.2 spans.
    counts = draw(64, 10_000, Config(0.3, length=1, min_spans=0)).sum(1)
    assert set(counts) == {19, 20}
    assert (counts == 20).mean() == pytest.approx(0.2, abs=0.015)
    assert set(draw(64, 500, Config(0.3, length=1, min_spans=30)).sum(1)) == {30}


def test_starts_are_even_and_unbiased_over_keys_and_salts():
    starts = np.concatenate([draw(40, 4000, Config(0.0, 1, 1), salt).argmax(1) for salt in range(5)])
    counts = np.bincount(starts, minlength=40)
    chi_square = ((counts - 500) ** 2 / 500).sum()
    assert chi_square < 73  # 39 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize("distribution", ["static", "uniform", "normal", "poisson"])
@pytest.mark.parametrize("no_overlap", [False, True])
def test_row_is_a_pure_function_of_key_salt_and_length(distribution, no_overlap):
    config = Config(length_distribution=distribution, no_overlap=no_overlap)
    random = np.random.default_rng(1)
    lengths, keys = torch.from_numpy(random.integers(0, 300, 50)), torch.arange(50) * 7919
    together = span_mask(lengths, config, keys, salt=3)
    order = torch.from_numpy(random.permutation(50))
    torch.testing.assert_close(
        span_mask(lengths[order], config, keys[order], 3, 320)[:, : together.shape[1]], together[order]
    )
    for i in range(50):
        alone = span_mask(lengths[i : i + 1], config, keys[i : i + 1], salt=3)
        assert torch.equal(alone[0], together[i, : lengths[i]])
        assert not together[i, lengths[i] :].any()
    assert not torch.equal(span_mask(lengths, config, keys, salt=4), together)


def test_short_utterances_keep_one_frame_and_mask_half_when_shorter_than_a_span():
    for length in range(30):
        hidden = draw(length, 200)
        if length < 2:
            assert not hidden.any()
        elif length < 10:
            assert (hidden.sum(1) == length // 2).all() and all(len(runs(row)) == 1 for row in hidden)
        else:
            assert (hidden.sum(1) >= 9).all() and (hidden.sum(1) < length).all()


@pytest.mark.parametrize("distribution", ["static", "uniform", "normal", "poisson"])
def test_spans_without_overlap_keep_their_lengths_and_gaps(distribution):
    config = Config(0.65, 10, 2, length_distribution=distribution, no_overlap=True, min_space=2)
    hidden = draw(200, 4000, config)
    lengths = np.concatenate([[length for _, length in runs(row)] for row in hidden])
    gaps = [np.diff([x for s, n in runs(row) for x in (s, s + n)])[1::2] for row in hidden]
    assert np.concatenate(gaps).min() == 2
    if distribution == "static":
        assert set(lengths) == {10} and {len(runs(row)) for row in hidden} == {13}
    else:
        spread = {"uniform": np.sqrt((19**2 - 1) / 12), "normal": 3.0, "poisson": np.sqrt(10)}[distribution]
        assert lengths.mean() == pytest.approx(10, rel=0.02)
        assert lengths.std() == pytest.approx(spread, rel=0.03)


def test_arrangements_without_overlap_are_equally_likely():
    config = Config(0.0, 2, 2, no_overlap=True)  # two spans of 2 with a gap in 7 frames
    patterns, counts = np.unique(draw(7, 12_000, config), axis=0, return_counts=True)
    assert len(patterns) == 6  # the two free frames: before, between, after
    assert ((counts - 2000) ** 2 / 2000).sum() < 20.5  # 5 degrees of freedom, 1 in 1000


def test_no_overlap_takes_fewer_spans_where_they_do_not_fit():
    hidden = draw(23, 100, Config(5.0, 10, 2, no_overlap=True))
    assert (hidden.sum(1) == 20).all()
    assert (draw(20, 100, Config(5.0, 10, 2, no_overlap=True)).sum(1) == 10).all()


def test_equalize_cuts_to_the_smallest_count_of_the_batch():
    lengths, keys = torch.tensor([300, 80, 0, 150]), torch.arange(4)
    whole = span_mask(lengths, Config(), keys)
    cut = span_mask(lengths, Config(equalize=True), keys)
    fewest = int(whole.sum(1)[whole.any(1)].min())
    assert cut.sum(1).tolist() == [fewest, fewest, 0, fewest]
    assert not (cut & ~whole).any()


def test_channel_masks():
    config = Config(0.5, 64, 0)
    hidden = channel_mask(torch.arange(2000), 768, config, salt=9).numpy()
    assert hidden.shape == (2000, 768)
    spans = hidden.sum(1) / 64
    assert spans.max() <= 6 and hidden.any(0).all()
    assert not channel_mask(torch.arange(10), 768, Config(0.0, 64, 0)).any()


def test_empty_batch():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert span_mask(nothing, Config(), nothing).shape == (0, 0)


@pytest.mark.parametrize(
    "values", [{"probability": -0.1}, {"length": 0}, {"probability": 11}, {"min_spans": -1}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}="):
        Config(**values)
