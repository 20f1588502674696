"""A probabilistic context-free grammar: rules as text, sentences as lists of words."""

from __future__ import annotations

import random
import re
from bisect import bisect
from itertools import accumulate


class Grammar:
    """Draws sentences from weighted rules.

    Args:
        rules: symbol -> alternatives divided by `|` or line ends, each with an optional weight in front
            (`3* the PLACE`). Words in capitals are symbols; those without a rule are slots and stay
            as they are. `-` is the empty alternative.
        without: words that must not come up: alternatives with one of them are left out.
    """

    def __init__(self, rules: dict[str, str], without: frozenset[str] = frozenset()) -> None:
        self._rules: dict[str, tuple[list[list[str]], list[float]]] = {}
        for symbol, text in rules.items():
            alternatives, weights = [], []
            for alternative in filter(None, (part.strip() for part in re.split(r"[|\n]", text))):
                weight, words = re.fullmatch(r"(?:([\d.]+)\* )?(.*)", alternative).groups()
                words = [word for word in words.split() if word != "-"]
                if without.isdisjoint(words):
                    alternatives.append(words)
                    weights.append(float(weight or 1))
            if not alternatives:
                raise ValueError(f"grammar: every alternative of {symbol} is left out")
            self._rules[symbol] = alternatives, list(accumulate(weights))

    def draw(self, symbol: str, rng: random.Random) -> list[str]:
        """One random expansion of a symbol, slots left as they are."""
        alternatives, weights = self._rules[symbol]
        words: list[str] = []
        for word in alternatives[bisect(weights, rng.random() * weights[-1])]:
            if word in self._rules:
                words += self.draw(word, rng)
            else:
                words.append(word)
        return words

    def count(self, symbol: str) -> int:
        """The number of derivations of a symbol (a slot counts as one)."""
        total = 0
        for words in self._rules[symbol][0]:
            product = 1
            for word in words:
                product *= self.count(word) if word in self._rules else 1
            total += product
        return total

    def words(self) -> set[str]:
        """All words that can come up."""
        alternatives = (words for rule, _ in self._rules.values() for words in rule)
        return {
            word for words in alternatives for word in words if word not in self._rules and not word.isupper()
        }
