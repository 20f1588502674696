"""Interpolated modified Kneser-Ney estimates, as lmplz makes them, by sorting arrays of n-gram ids.

Source: Chen and Goodman (1998), "An empirical study of smoothing techniques for language modeling",
section 3, eq. (26) for the discounts; Heafield et al. (2013), "Scalable modified Kneser-Ney language
model estimation", section 3, for adjusted counts, back-off weights and interpolation.
Nothing is pruned. As in lmplz, `<s>` is only ever a context (log10 probability 0 in the file), and the
unigrams are interpolated with 1/V, V counting `<unk>` and `</s>` but not `<s>`; `<unk>` has that share
alone unless the vocabulary was limited and the text has words outside it. lmplz itself differs in one
count of counts, see test/fixtures/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from speechkit.errors import InputError
from speechkit.lm.ngram import BOS, EOS, SPECIAL, UNK, Level, NgramLM

MAX_ORDER = 6
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of counts 1, 2 and 3+ that lmplz's --discount_fallback takes by default."""


@dataclass
class _Grams:
    """Distinct n-grams of one order: `Level`'s links, whether they begin with <s>, and counts."""

    prefix: np.ndarray
    word: np.ndarray
    suffix: np.ndarray
    starts: np.ndarray
    count: np.ndarray


def train_ngram(
    sentences: Iterable[str],
    order: int,
    words: Sequence[str] | None = None,
    discount_fallback: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> NgramLM:
    """Estimates an n-gram model.

    Args:
        sentences: lines of words separated by white space; empty lines count as empty sentences.
        order: 1 to 6.
        words: the vocabulary; other words of the text count as `<unk>`, and listed words that the text
            lacks get the share of an unseen word. By default all words of the text.
        discount_fallback: discounts for counts 1, 2 and 3+ where the text has too few n-grams of some
            count to estimate them; None refuses such a text.
        names: what to call each sentence in an error message, such as `file:line`; by default its number.

    Returns:
        The model; its `discounts` attribute holds D1, D2, D3+ of every order.

    Raises:
        InputError: bad order, no words, a reserved symbol in the text, or too small a text.
    """
    if not 1 <= order <= MAX_ORDER:
        raise InputError(f"order {order}: n-gram models have an order of 1 to {MAX_ORDER}")
    vocabulary, text = _read(sentences, words, names)
    levels = _adjust(_count(text, order, len(vocabulary)))
    discounts = [_discounts(n, grams, discount_fallback) for n, grams in enumerate(levels, start=1)]
    lm = NgramLM(vocabulary, _interpolate(levels, discounts, len(vocabulary)))
    lm.discounts = discounts
    return lm


def _read(
    sentences: Iterable[str], words: Sequence[str] | None, names: Sequence[str] | None
) -> tuple[list[str], np.ndarray]:
    """The vocabulary, and the text as one array of ids with <s> and </s> around every sentence."""
    index = {word: number for number, word in enumerate((*SPECIAL, *(words or ())))}
    if len(index) != 3 + len(words or ()):
        raise InputError("the word list names a word twice, or one of <unk> <s> </s>")
    unk, bos, eos = (index[word] for word in SPECIAL)
    flat: list[int] = []
    for number, sentence in enumerate(sentences):
        tokens = sentence.split()
        for symbol in SPECIAL:
            if symbol in tokens:
                name = names[number] if names else f"sentence {number + 1}"
                raise InputError(f"{name}: the text holds the reserved symbol {symbol}; remove it")
        flat.append(bos)
        if words is None:
            flat.extend([index.setdefault(token, len(index)) for token in tokens])
        else:
            flat.extend([index.get(token, unk) for token in tokens])
        flat.append(eos)
    text = np.array(flat, dtype=np.int64)
    if not (text > 2).any():
        raise InputError("no words" + (" of the word list" if words is not None else "") + " in the text")
    return list(index), text


def _count(text: np.ndarray, order: int, size: int) -> list[_Grams]:
    """Distinct n-grams of each order with their plain counts, from windows that stay in a sentence."""
    position = np.arange(len(text))
    since_start = position - np.maximum.accumulate(np.where(text == 1, position, 0))
    number = np.arange(size)
    count = np.bincount(text, minlength=size)
    zero = np.zeros(size, dtype=np.int64)
    levels = [_Grams(zero, number, zero, number == 1, count)]
    below = text  # index of the (n-1)-gram that ends at each position
    for n in range(2, order + 1):
        ends = np.flatnonzero(since_start >= n - 1)
        keys, first, inverse, count = np.unique(
            below[ends - 1] * size + text[ends], return_index=True, return_inverse=True, return_counts=True
        )
        prefix = keys // size
        levels.append(_Grams(prefix, keys % size, below[ends[first]], levels[-1].starts[prefix], count))
        below = np.full(len(text), -1)
        below[ends] = inverse.reshape(-1)
    return levels


def _adjust(levels: list[_Grams]) -> list[_Grams]:
    """Below the highest order, counts become numbers of distinct words seen before the n-gram.

    N-grams that begin with <s> have nothing before them and keep their plain counts.
    """
    for grams, above in zip(levels[:-1], levels[1:]):
        before = np.bincount(above.suffix, minlength=len(grams.word))
        grams.count = np.where(grams.starts, grams.count, before)
    levels[0].count[1] = 0  # <s> is never predicted
    return levels


def _discounts(order: int, grams: _Grams, fallback: Sequence[float] | None) -> np.ndarray:
    """D0 = 0, D1, D2, D3+ from the counts of counts, eq. (26)."""
    n = np.bincount(np.minimum(grams.count, 5), minlength=6)[:5].astype(float)
    if (n[1:4] > 0).all():
        y = n[1] / (n[1] + 2 * n[2])
        steps = np.arange(1, 4)
        found = steps - (steps + 1) * y * n[2:5] / n[1:4]
        if (found >= 0).all() and (found <= steps).all():
            return np.array([0.0, *found])
        reason = "discounts " + ", ".join(f"{value:.3f}" for value in found) + " are out of range"
    else:
        missing = int(np.flatnonzero(n[1:4] == 0)[0]) + 1
        reason = f"no {order}-gram has an adjusted count of {missing}"
    if fallback is None:
        raise InputError(
            f"cannot estimate the Kneser-Ney discounts of order {order}: {reason}. The text is too small or "
            "not natural: add text, drop repeated sentences, or allow --discount-fallback true"
        )
    return np.array([0.0, *fallback])


def _interpolate(levels: list[_Grams], discounts: list[np.ndarray], size: int) -> list[Level]:
    """Probabilities from the lowest order up, and back-off weights of each order's contexts."""
    lower = np.full(1, 1.0 / (size - 1))  # uniform over the words that can be predicted
    made: list[Level] = []
    for grams, discount in zip(levels, discounts):
        contexts = len(lower) if made else 1
        total = np.bincount(grams.prefix, weights=grams.count, minlength=contexts)
        taken = discount[np.minimum(grams.count, 3)]
        left = np.bincount(grams.prefix, weights=taken, minlength=contexts)
        weight = np.divide(left, total, out=np.ones(contexts), where=total > 0)
        probability = (grams.count - taken) / total[grams.prefix] + weight[grams.prefix] * lower[grams.suffix]
        if made:
            # A discount of 0 leaves a context no mass; files hold finite numbers only.
            made[-1].backoff = np.log10(np.maximum(weight, 1e-99)).astype(np.float32)
        else:
            probability[1] = 1.0
        log10 = np.log10(probability).astype(np.float32)
        made.append(Level(grams.prefix, grams.word, grams.suffix, log10, np.zeros(len(log10), np.float32)))
        lower = probability
    return made


__all__ = ["BOS", "EOS", "FALLBACK", "MAX_ORDER", "UNK", "train_ngram"]
