"""The voices: espeak-ng variants of American English, each in one set only; relatives stay together."""

from __future__ import annotations

import hashlib
import random

from speechkit.data.synthesis import Voice

# A speaker of the corpus is a variant; rate and pitch vary from one utterance to the next.
# Relatives, joined by a slash, go to the same set.
ORDINARY = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene/Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike "
    "Nguyen adam antonio aunty belinda benjamin boris caleb david ed edward/edward2 f1 f2 f3 f4 f5 grandma "
    "grandpa gustave iven/iven2/iven3/iven4 john kaukovalta linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel "
    "miguel pablo paul quincy rob robert steph travis victor"
)
HARD = "zac shelby norbert anika klatt4"


def deal(sizes: dict[str, int]) -> dict[str, list[str]]:
    """Deals the ordinary voices by the hash of their names, so that nobody's liking decides.

    Args:
        sizes: group -> voices, or a few more as no family is split. The last group takes the rest.
    """
    families = [family.split("/") for family in ORDINARY.split()]
    families.sort(key=lambda family: hashlib.sha256(family[0].lower().encode()).digest())
    dealt: dict[str, list[str]] = {name: [] for name in sizes}
    for family in families:
        name = next((name for name, size in sizes.items() if len(dealt[name]) < size), list(sizes)[-1])
        dealt[name] += family
    return dealt


VOICES = deal({"test": 8, "dev": 6, "train": 0}) | {"hard": HARD.split()}
VOICES["unlabelled"] = VOICES["train"]
BABBLE = "sandro pedro Tweaky Storm fast announcer".split()  # talk in the background only

RATES = 125, 165  # words a minute
PITCHES = 35, 65
RANGES = 30, 70


def draw_voice(variant: str, rng: random.Random, language: str = "en-us") -> Voice:
    """A voice of the variant with random rate and pitch."""
    return Voice(language, variant, rng.randint(*RATES), rng.randint(*PITCHES), rng.randint(*RANGES))
