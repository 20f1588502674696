#!/usr/bin/env python3
"""Checks the corpus's homophones with espeak-ng's own phones; exit status 1 when one is none.

1. Words sound the same in `the <word>` if and only if language.py declares them as homophones.
2. Both words of a far pair sound the same in whole sentences, and so do the sentences around them.
"""

from __future__ import annotations

import random
import sys

from grammar import Grammar
from language import FAR_PAIRS, NEAR_SETS, NEUTRAL, RULES, TOPICS

from speechkit.data.synthesis import Synthesizer, without_stress

SENTENCES = 5  # for each far pair


def vocabulary() -> set[str]:
    """Every word of the language."""
    listed = {word for row in TOPICS.values() for words in row for word in words.split()}
    return Grammar(RULES).words() | listed | set(NEUTRAL)


def sound_groups(synthesizer: Synthesizer) -> set[frozenset[str]]:
    """The groups of two or more words with the same phones, stress left out, after `the`."""
    groups: dict[tuple[str, ...], set[str]] = {}
    for word in vocabulary():
        phones = [without_stress(phone) for group in synthesizer.phones(f"the {word}")[1:] for phone in group]
        groups.setdefault(tuple(phones), set()).add(word)
    return {frozenset(words) for words in groups.values() if len(words) > 1}


def carriers(rng: random.Random, count: int) -> list[str]:
    """Sentences with a `{}` where the far word goes."""
    grammar = Grammar(RULES)
    return [
        " ".join("{}" if word == "OBJECT" else word for word in grammar.draw("FRAME", rng)).replace(
            "SUBJECT", "man"
        )
        for _ in range(count)
    ]


def main() -> int:
    """Prints the findings; returns the exit status."""
    synthesizer, rng, problems = Synthesizer(), random.Random(0), []
    declared = {frozenset(words) for words in FAR_PAIRS + NEAR_SETS}
    found = sound_groups(synthesizer)
    problems += [
        f"declared, but they sound different: {'/'.join(sorted(words))}" for words in declared - found
    ]
    problems += [
        f"sound the same, but are not declared: {'/'.join(sorted(words))}" for words in found - declared
    ]
    for one, other in FAR_PAIRS:
        for carrier in carriers(rng, SENTENCES):
            if synthesizer.phones(carrier.format(one)) != synthesizer.phones(carrier.format(other)):
                problems.append(f"{one}/{other} differ in: {carrier.format(one)}")
    print("\n".join(problems) or f"{len(FAR_PAIRS)} far pairs and {len(NEAR_SETS)} near sets are homophones")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
