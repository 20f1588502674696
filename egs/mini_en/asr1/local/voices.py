"""The voices: espeak-ng variants of American English, each in one set only; relatives stay together."""

from __future__ import annotations

import random

from speechkit.data.synthesis import Voice

# A speaker of the corpus is a variant; rate and pitch vary from one utterance to the next.
_TRAIN = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario "
    "Michael Mike Nguyen adam antonio aunty boris caleb david edward edward2 f1 f2 "
    "f4 gustave iven iven2 iven3 iven4 john kaukovalta m1 m2 m3 m4 marcelo max michel miguel pablo "
    "paul quincy rob"
)
VOICES = {
    "train": _TRAIN.split(),
    "unlabelled": _TRAIN.split(),
    "dev": "f3 m5 m6 ed linda robert".split(),
    "test": "f5 m7 m8 belinda benjamin grandma grandpa victor".split(),
    "hard": "zac shelby norbert anika klatt4 steph travis".split(),
}
BABBLE = "sandro pedro Tweaky Storm fast announcer".split()  # talk in the background only

RATES = 125, 165  # words a minute
PITCHES = 35, 65
RANGES = 30, 70


def draw_voice(variant: str, rng: random.Random) -> Voice:
    """A voice of the variant with random rate and pitch."""
    return Voice("en-us", variant, rng.randint(*RATES), rng.randint(*PITCHES), rng.randint(*RANGES))
