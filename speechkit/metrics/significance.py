"""Confidence intervals and the one paired test: a bootstrap over speakers and their utterances.

The statistic is a ratio of sums, r = sum(e) / sum(n): errors over words, or differences of errors over
words. Its deviations are those of z = e - r n, whose sum is 0 (linearisation). Speakers are drawn with
replacement, and for each drawn speaker as many of its utterances with replacement. Done plainly
that counts the spread of utterances twice: it is in the speakers' sums already. So the speakers' sums
are shrunk until the variance of the bootstrap is what the data show (Davison & Hinkley 1997, section
3.8): max(B, W), with B = S/(S-1) * sum of the squared speaker sums and W = sum of the squared
deviations of utterances from their speaker's mean. As S speakers estimate B badly, deviations are widened
by the ratio of Student's quantile (S-1 degrees of freedom) to the normal one (Hesterberg 2015,
"expanded percentile").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechkit.errors import InputError

FEW_SPEAKERS = 5
RESAMPLES = 10_000
LEVEL = 0.95
POOL = 1000
BLOCK = 2_000_000


@dataclass(frozen=True)
class Utterances:
    """Counts of one decode, utterances sorted by id.

    Attributes:
        ids: utterance ids.
        speakers: the speaker of each.
        words: `(U,)` reference words, or those of a class.
        errors: `(U,)` errors, or wrong words of the class.
    """

    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    words: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A rate in per cent with its 95 % interval, and what was drawn to get it."""

    rate: float
    low: float
    high: float
    drawn: str


@dataclass(frozen=True)
class Comparison:
    """Two decodes, or two groups of decodes, on the same utterances.

    Attributes:
        rate_a: error rate of the first in per cent (mean over its seeds).
        rate_b: of the second.
        delta: `rate_a - rate_b`: negative when the first is better.
        low: lower end of the 95 % interval of delta.
        high: upper end.
        p: two-sided; below 0.05 exactly when 0 is outside the interval.
        words: reference words that were compared.
        drawn: what was drawn in the bootstrap.
    """

    rate_a: float
    rate_b: float
    delta: float
    low: float
    high: float
    p: float
    words: int
    drawn: str

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p < 1 - LEVEL

    def line(self, unit: str = "words") -> str:
        """One line for people; the unit is what `words` counts."""
        if not self.distinguishable:
            verdict = "not distinguishable"
        else:
            verdict = f"the {'first' if self.delta < 0 else 'second'} is better"
        numbers = (
            f"{self.rate_a:.2f} - {self.rate_b:.2f} = {self.delta:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        )
        return f"{numbers}, {p_text(self.p)}: {verdict} ({self.words} {unit}, {self.drawn})"


def p_text(p: float) -> str:
    """A p-value as text; what the number of resamples cannot resolve is a bound."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(decodes: Sequence[Utterances], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """95 % interval of an error rate, the mean over seeds.

    Args:
        decodes: one for each training seed, all of the same utterances.
        resamples: bootstrap draws.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        InputError: other utterances or other references, or no reference words.
    """
    _check_same(decodes)
    first = decodes[0]
    errors = np.mean([decode.errors for decode in decodes], axis=0)
    rate, deviations, drawn = _bootstrap(errors, first.words, first.speakers, resamples, seed)
    low, high = _ends(rate + deviations)
    return Interval(100 * rate, 100 * max(low, 0.0), 100 * high, drawn)


def paired_test(
    a: Sequence[Utterances], b: Sequence[Utterances], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """The paired test: is the error rate of `a` another than that of `b`?

    Errors are averaged over the seeds of each side before utterances are compared.

    Args:
        a: the decodes of one system, one for each seed.
        b: those of the other, on the same utterances; another number of seeds is fine.
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        InputError: other utterances or other references, or no reference words.
    """
    _check_same([*a, *b])
    first = a[0]
    errors_a, errors_b = (np.mean([decode.errors for decode in side], axis=0) for side in (a, b))
    words = first.words.sum()
    delta, deviations, drawn = _bootstrap(errors_a - errors_b, first.words, first.speakers, resamples, seed)
    draws = delta + deviations
    low, high = _ends(draws)
    p = min(1.0, 2 * (1 + min((draws <= 0).sum(), (draws >= 0).sum())) / (resamples + 1))
    rates = (100 * errors_a.sum() / words, 100 * errors_b.sum() / words)
    return Comparison(*rates, 100 * delta, 100 * low, 100 * high, float(p), int(words), drawn)


def _ends(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _check_same(decodes: Sequence[Utterances]) -> None:
    if not decodes:
        raise InputError("no decode to compare")
    first = decodes[0]
    for other in decodes[1:]:
        if other.ids != first.ids:
            odd = sorted(set(other.ids) ^ set(first.ids))
            raise InputError(
                f"decodes of different utterances cannot be compared (such as {', '.join(odd[:3])})"
            )
        different = np.flatnonzero(other.words != first.words)
        if len(different):
            utterance = first.ids[different[0]]
            raise InputError(f"utterance {utterance}: the decodes were scored against different references")
    if not first.words.sum():
        raise InputError("no reference words to compare")


def _bootstrap(
    errors: np.ndarray, words: np.ndarray, speakers: Sequence[str], resamples: int, seed: int
) -> tuple[float, np.ndarray, str]:
    """The ratio, `(resamples,)` deviations from it, and what was drawn; see the top of the file."""
    rate = float(errors.sum() / words.sum())
    z = errors - rate * words
    rng = np.random.default_rng(seed)
    names, codes = np.unique(np.asarray(speakers), return_inverse=True)
    count = len(names)
    if count < FEW_SPEAKERS:
        drawn = f"utterances drawn: only {count} speaker{'s' if count > 1 else ''}"
        total, size = _draw(z[:, None], words[:, None], resamples, rng)
        return rate, total / np.maximum(size, 1), drawn
    drawn = f"{count} speakers and their utterances drawn"
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    sums = np.array([z[part].sum() for part in parts])
    within = float(sum(((z[part] - z[part].mean()) ** 2).sum() for part in parts))
    between = count / (count - 1) * float((sums**2).sum())
    shrink = np.sqrt(max(between - within, 0.0) / (sums**2).sum()) if between > 0 else 0.0
    columns = POOL if max(map(len, parts)) > 1 else 1
    pool_z, pool_words = np.empty((2, count, columns))
    for speaker, part in enumerate(parts):
        chosen = part[rng.integers(len(part), size=(columns, len(part)))]
        pool_z[speaker] = (z[chosen] - z[part].mean()).sum(axis=1)
        pool_words[speaker] = words[chosen].sum(axis=1)
    total, size = _draw(pool_z + shrink * sums[:, None], pool_words, resamples, rng)
    free = count - 1 if between > within else len(z) - count
    return rate, _widening(free) * total / np.maximum(size, 1), drawn


def _draw(
    z: np.ndarray, words: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """`(resamples,)` sums over as many rows as there are, drawn with replacement, at random columns."""
    rows, columns = z.shape
    flat_z, flat_words = z.ravel(), words.ravel()
    sums = []
    for start in range(0, resamples, step := max(BLOCK // rows, 1)):
        shape = (min(step, resamples - start), rows)
        chosen = rng.integers(rows * columns, size=shape)
        sums.append(tuple(np.take(flat, chosen).sum(axis=1) for flat in (flat_z, flat_words)))
    return tuple(np.concatenate(part) for part in zip(*sums))


def _widening(free: int) -> float:
    """Student's quantile over the normal one."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(max(free, 1), (1 + LEVEL) / 2) / ndtri((1 + LEVEL) / 2))
