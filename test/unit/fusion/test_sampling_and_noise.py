"""Sampling with decay and the noise of the conditional masked language model."""

import pytest
import torch

from speechkit.config import from_dict
from speechkit.errors import ProblemsError
from speechkit.fusion.conditional_mlm import NewHead, add_noise
from speechkit.fusion.sampling_decay import SamplingDecay

KEYS = torch.arange(20_000) * 7919 - 50_000_000


def chance(share, p, count):
    """Whether an observed share lies within three standard deviations of p."""
    return abs(float(share) - p) < 3 * (p * (1 - p) / count) ** 0.5


# ---- the schedule -------------------------------------------------------------------------------------


def test_the_schedules_of_the_paper():
    babel, aishell = SamplingDecay(100_000, 200_000), SamplingDecay(40_000, 100_000)
    assert [babel.p(n) for n in (0, 100_000, 200_000, 900_000)] == pytest.approx([0.9, 0.9, 0.1, 0.1])
    assert babel.p(150_000) == pytest.approx(0.5) and aishell.p(70_000) == pytest.approx(0.5)
    values = [babel.p(n) for n in range(0, 250_000, 777)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_without_decay_one_source_is_always_read(p):
    constant = SamplingDecay(0, 0, p, p)
    for update in (0, 1, 10**6):
        assert constant.p(update) == p
        assert constant.picks(KEYS, update).float().mean() == p


def test_a_step_where_start_and_end_meet():
    step = SamplingDecay(5, 5)
    assert [step.p(n) for n in (5, 6)] == [0.9, 0.1]


@pytest.mark.parametrize("update", [0, 120_000, 150_000, 200_000])
def test_as_many_are_picked_as_the_schedule_says(update):
    decay = SamplingDecay()
    assert chance(decay.picks(KEYS, update).double().mean(), decay.p(update), len(KEYS))
    tokens = decay.token_picks(KEYS[:2000], update, 10)
    assert chance(tokens.double().mean(), decay.p(update), tokens.numel())
    assert tokens.any(0).all() and not tokens.all(1).all() and len(tokens.unique(dim=0)) > 1


def test_an_utterance_is_picked_alike_in_any_batch():
    decay, order = SamplingDecay(), torch.randperm(100)
    assert torch.equal(decay.picks(KEYS[:100][order], 150_000), decay.picks(KEYS[:100], 150_000)[order])
    wide = decay.token_picks(KEYS[:100], 150_000, 9)
    assert torch.equal(decay.token_picks(KEYS[:100], 150_000, 4), wide[:, :4])


def test_a_schedule_is_checked():
    with pytest.raises(ProblemsError, match="end=5 must be in"):
        from_dict(SamplingDecay, {"start": 10, "end": 5})
    with pytest.raises(ProblemsError, match="low=0.95 must be in"):
        from_dict(SamplingDecay, {"low": 0.95})


# ---- the noise ----------------------------------------------------------------------------------------


def noised(length, noise="abnet", count=20_000, vocab=50):
    tokens = torch.full((count, length), 7)
    return tokens, add_noise(tokens, torch.full((count,), length), KEYS[:count], vocab, noise)


@pytest.mark.parametrize("noise, most", [("abnet", 6), ("all_mask", 5)])
def test_the_number_of_chosen_tokens_is_even(noise, most):
    _, out = noised(6, noise)
    counts = torch.bincount(out.chosen.sum(1), minlength=8) / 20_000
    assert counts[0] == 0 and counts[most + 1 :].sum() == 0
    for number in range(1, most + 1):
        assert chance(counts[number], 1 / most, 20_000)


@pytest.mark.parametrize("noise", ["abnet", "all_mask"])
def test_all_places_are_chosen_alike(noise):
    _, out = noised(6, noise)
    mean = 7 / 12 if noise == "abnet" else 0.5
    for place in out.chosen.double().mean(0):
        assert chance(place, mean, 20_000)


def test_what_becomes_of_the_chosen_tokens():
    tokens, out = noised(6)
    chosen = out.chosen.sum()
    changed = out.tokens != tokens
    assert not (changed & ~out.chosen).any() and not (changed & out.masked).any()
    assert not (out.masked & ~out.chosen).any()
    assert chance(out.masked.sum() / chosen, 0.8, chosen)
    # One of 49 random tokens is the true one.
    assert chance(changed.sum() / chosen, 0.1 * 48 / 49, chosen)
    values = torch.bincount(out.tokens[changed], minlength=50)
    assert values[0] == 0 and (values[1:7] > 0).all() and (values[8:] > 0).all()


def test_all_mask_masks_all_that_it_chooses():
    tokens, out = noised(6, "all_mask")
    assert torch.equal(out.tokens, tokens) and torch.equal(out.masked, out.chosen)
    assert noised(1, "all_mask", 5)[1].masked.all()  # of a single token N - 1 would be none


@pytest.mark.parametrize("noise", ["abnet", "all_mask"])
def test_padding_is_never_chosen_and_rows_do_not_depend_on_the_batch(noise):
    lengths = torch.tensor([5, 0, 1, 9, 3])
    tokens = torch.randint(1, 50, (5, 9), generator=torch.Generator().manual_seed(0))
    whole = add_noise(tokens, lengths, KEYS[:5], 50, noise)
    assert not (whole.chosen & (torch.arange(9) >= lengths[:, None])).any()
    assert (whole.chosen.any(1) == (lengths > 0)).all()
    for row, length in enumerate(lengths.tolist()):
        alone = add_noise(tokens[row, None, :length], lengths[row, None], KEYS[row, None], 50, noise)
        for one, other in zip(whole, alone):
            assert torch.equal(one[row, :length], other[0])


def test_another_key_hides_other_tokens():
    tokens, lengths = torch.ones(1, 40, dtype=torch.int64), torch.tensor([40])
    rows = {tuple(add_noise(tokens, lengths, KEYS[i, None], 50).masked[0].tolist()) for i in range(20)}
    assert len(rows) == 20


def test_a_vocabulary_of_the_unknown_token_alone():
    out = add_noise(torch.zeros(50, 4, dtype=torch.int64), torch.full((50,), 4), KEYS[:50], 1)
    assert not out.tokens.any()


def test_a_new_head_gives_logits_of_the_linguistic_vocabulary():
    head = NewHead(6, 11)
    assert head(torch.randn(2, 3, 6)).shape == (2, 3, 11)
    sizes = {name: tuple(p.shape) for name, p in head.named_parameters() if p.dim() == 2}
    assert sizes == {"inner.weight": (6, 6), "out.weight": (11, 6)}
