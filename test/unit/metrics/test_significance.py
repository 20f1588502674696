"""The bootstrap on data whose distribution is known."""

import numpy as np
import pytest
from scipy.stats import binom, kstest

from speechkit.errors import InputError
from speechkit.metrics.significance import Comparison, Utterances, interval, p_text, paired_test

WORDS = 10


def decode(errors, speakers):
    ids = tuple(f"u{number:05d}" for number in range(len(errors)))
    words = np.full(len(errors), float(WORDS))
    return Utterances(ids, tuple(map(str, speakers)), words, np.asarray(errors, float))


def drawn_pair(rng, speakers=12, each=40, effect=0.03, difference=0.0):
    """Two decodes; each speaker is a little easier or harder for the first one."""
    of = np.repeat(np.arange(speakers), each)
    shift = rng.normal(0, effect, speakers)[of]
    errors = (rng.binomial(WORDS, np.clip(rate, 0, 1)) for rate in (0.2 + difference + shift, 0.2 - shift))
    return [decode(each_errors, of) for each_errors in errors]


def test_rate_and_interval_by_hand():
    found = interval([decode([0] * 50 + [2] * 50, [0] * 100)])
    assert found.rate == pytest.approx(10.0)
    assert "only 1 speaker" in found.drawn
    # Of 100 draws of 0 or 2 errors: 2 * Binomial(100, 1/2) errors of 1000 words.
    low, high = (100 * 2 * binom.ppf(q, 100, 0.5) / 1000 for q in (0.025, 0.975))
    assert found.low == pytest.approx(low, abs=0.25) and found.high == pytest.approx(high, abs=0.25)


def test_few_speakers_fall_back_to_utterances_and_say_so():
    rng = np.random.default_rng(0)
    few = decode(rng.binomial(WORDS, 0.2, 80), np.arange(80) % 4)
    many = decode(rng.binomial(WORDS, 0.2, 80), np.arange(80) % 5)
    assert "only 4 speakers" in interval([few]).drawn
    assert interval([many]).drawn == "5 speakers and their utterances drawn"


def test_speakers_that_differ_widen_the_interval():
    rng = np.random.default_rng(1)
    of = np.repeat(np.arange(10), 50)
    alike = decode(rng.binomial(WORDS, 0.2, 500), of)
    apart = decode(rng.binomial(WORDS, np.linspace(0.02, 0.38, 10)[of]), of)
    widths = [found.high - found.low for found in (interval([alike]), interval([apart]))]
    assert widths[1] > 3 * widths[0]


def test_interval_covers_the_true_rate_95_times_of_100():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        first, _ = drawn_pair(rng, each=24)
        found = interval([first], resamples=500)
        hits += found.low <= 20.0 <= found.high
    assert 0.91 <= hits / 300 <= 0.985


@pytest.mark.parametrize(("speakers", "effect"), [(12, 0.0), (12, 0.04), (3, 0.0)])
def test_p_is_uniform_when_nothing_differs(speakers, effect):
    rng = np.random.default_rng(3)
    ps = np.array(
        [_p(*drawn_pair(rng, speakers, 288 // speakers, effect), resamples=600) for _ in range(300)]
    )
    # Never too often "significant"; being a little too careful is allowed.
    assert (ps < 0.05).mean() <= 0.085
    assert 0.3 <= (ps < 0.5).mean() <= 0.6
    assert kstest(ps, "uniform").statistic < 0.13


def _p(first, second, resamples):
    return paired_test([first], [second], resamples).p


def test_a_real_difference_is_found_and_its_interval_covers_it():
    rng = np.random.default_rng(4)
    found = [paired_test(*([d] for d in drawn_pair(rng, difference=0.1)), resamples=500) for _ in range(100)]
    assert sum(f.distinguishable and f.delta > 0 for f in found) >= 95
    assert sum(f.low <= 10.0 <= f.high for f in found) >= 88


def test_pairing_cancels_what_both_have_in_common():
    rng = np.random.default_rng(5)
    of = np.repeat(np.arange(10), 40)
    hard = rng.binomial(WORDS, np.linspace(0.05, 0.6, 10)[of])
    worse = np.minimum(hard + (rng.random(400) < 0.1), WORDS)
    found = paired_test([decode(worse, of)], [decode(hard, of)])
    assert found.distinguishable
    single = interval([decode(worse, of)])
    assert found.high - found.low < (single.high - single.low) / 5


def test_equal_decodes_are_not_distinguishable():
    first, _ = drawn_pair(np.random.default_rng(6))
    found = paired_test([first], [first])
    assert (found.delta, found.p, found.distinguishable) == (0.0, 1.0, False)
    assert "not distinguishable" in found.line()


def test_p_and_interval_tell_the_same():
    rng = np.random.default_rng(7)
    for _ in range(60):
        found = paired_test(*([d] for d in drawn_pair(rng, difference=0.03)), resamples=999)
        if abs(found.p - 0.05) > 0.01:
            assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_seeds_are_averaged_and_the_draws_are_seeded():
    first, second = drawn_pair(np.random.default_rng(8))
    pooled = paired_test([first, second], [second])
    alone = paired_test([first], [second])
    assert pooled.delta == pytest.approx(alone.delta / 2)
    assert paired_test([first], [second], seed=1) == paired_test([first], [second], seed=1)
    assert paired_test([first], [second], seed=1) != paired_test([first], [second], seed=2)
    assert paired_test([second], [first]).delta == pytest.approx(-alone.delta)


def test_what_cannot_be_compared():
    first, second = drawn_pair(np.random.default_rng(9))
    fewer = decode(second.errors[:-1], second.speakers[:-1])
    with pytest.raises(InputError, match="different utterances .*u00479"):
        paired_test([first], [fewer])
    other = Utterances(second.ids, second.speakers, second.words + 1, second.errors)
    with pytest.raises(InputError, match="utterance u00000: .*different references"):
        paired_test([first], [other])
    with pytest.raises(InputError, match="no reference words"):
        interval([Utterances(("a",), ("s",), np.zeros(1), np.zeros(1))])


def test_text_of_small_p_values():
    assert (p_text(0.0002), p_text(0.0304)) == ("p < 0.001", "p = 0.030")
    better = Comparison(4.0, 5.0, -1.0, -1.5, -0.5, 0.0002, 500, "9 speakers and their utterances drawn")
    assert better.line() == (
        "4.00 - 5.00 = -1.00 [-1.50, -0.50], p < 0.001: the first is better "
        "(500 words, 9 speakers and their utterances drawn)"
    )
