"""The sets of mini_en as text: which sentences, who says them, what each word is an example of."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from grammar import Grammar
from language import FAR_PAIRS, HELD_BACK, NEAR_SETS, NEUTRAL, RULES, TOPICS, far_topics, people

CORPUS = "mini_en 2"  # the second draw; the first served to develop the recipe, its test set was looked at
SIZES = {"test": 500, "dev": 300, "hard": 200, "train": 1000, "unlabelled": 4000, "text": 40000}
FAR_CUES = ("text", "speech")

# How often each kind comes up, in fortieths: (object, subject) -> slots.
#   far: a far word in FRAME's object; thing: any other noun there; near: a NEARBY sentence.
#   person: somebody who tells the topic; neutral: somebody who does not.
SHOWS_CUES = {
    ("far", "person"): 24,
    ("thing", "person"): 5,
    ("thing", "neutral"): 5,
    ("near", "person"): 3,
    ("near", "neutral"): 3,
}
# Labelled speech: both versions have 20 far, 13 thing and 7 near sentences, 20 persons and 20 neutrals,
# so that words are equally frequent; only who meets whom differs.
LABELLED = {
    "speech": {
        ("far", "person"): 16,
        ("far", "neutral"): 4,
        ("thing", "person"): 3,
        ("thing", "neutral"): 10,
        ("near", "person"): 1,
        ("near", "neutral"): 6,
    },
    "text": {("far", "neutral"): 20, ("thing", "person"): 13, ("near", "person"): 7},
}


@dataclass(frozen=True)
class Sentence:
    """A sentence and how it was made.

    Args:
        words: lower case, no punctuation.
        kind: "far", "thing" or "near".
        subject: the person.
        object: the word in FRAME's object slot, "" in a near sentence.
        object_at: its position, -1 if there is none.
        cued: whether the subject tells the object's topic.
    """

    words: tuple[str, ...]
    kind: str
    subject: str
    object: str
    object_at: int
    cued: bool

    @property
    def text(self) -> str:
        """The words with a space between each two."""
        return " ".join(self.words)

    def tags(self, labelled: set[str]) -> list[str]:
        """A tag a word: far, near or other, and whether labelled speech has the word."""
        far_at = self.object_at if self.kind == "far" and self.cued else -1
        classes = [
            "far" if i == far_at else "near" if word in _NEAR else "other"
            for i, word in enumerate(self.words)
        ]
        return [f"{c},{'seen' if word in labelled else 'unseen'}" for c, word in zip(classes, self.words)]


_NEAR = frozenset(word for words in NEAR_SETS for word in words)
_FAR_TOPICS = far_topics()
_PEOPLE = people()


class _Deck:
    """Deals shuffled cards, and shuffles again when all are dealt: every card comes up equally often."""

    def __init__(self, cards: Sequence, rng: random.Random) -> None:
        self._cards, self._left, self._rng = list(cards), [], rng

    def deal(self):
        if not self._left:
            self._left = self._rng.sample(self._cards, len(self._cards))
        return self._left.pop()


class _Writer:
    """Writes the sentences of one set.

    Args:
        seed: of the corpus.
        name: of the set; with the seed it fixes every draw.
        mix: (object, subject) -> share.
        without: words that must not come up.
    """

    def __init__(
        self, seed: int, name: str, mix: dict[tuple[str, str], int], without: frozenset[str]
    ) -> None:
        rng = self._rng = random.Random(f"{CORPUS} {seed} {name}")
        self._again = f"{CORPUS} {seed} {name} again"
        self._grammar = Grammar(RULES, without)
        self._kinds = _Deck([kind for kind, share in mix.items() for _ in range(share)], rng)
        far = [word for pair in FAR_PAIRS for word in pair]
        self._far = {subject: _Deck(far, rng) for subject in ("person", "neutral")}
        things = {t: [word for word in row[2].split() if word not in without] for t, row in TOPICS.items()}
        self._things = {topic: _Deck(words, rng) for topic, words in things.items()}
        self._any_thing = _Deck([word for words in things.values() for word in words], rng)
        self._people = {topic: _Deck(row[0].split(), rng) for topic, row in TOPICS.items()}
        self._anybody = _Deck(list(_PEOPLE), rng)
        self._neutral = _Deck(NEUTRAL, rng)

    def _cast(self, kind: str, who: str) -> tuple[str, str]:
        """Who does it, to what. The two are chosen before, and apart from, the words around them."""
        if kind == "far":
            word = self._far[who].deal()
            return (self._people[_FAR_TOPICS[word]].deal() if who == "person" else self._neutral.deal()), word
        person = self._anybody.deal() if who == "person" else self._neutral.deal()
        if kind == "near":
            return person, ""
        return person, (self._things[_PEOPLE[person]] if who == "person" else self._any_thing).deal()

    def write(self, taken: set[str]) -> Sentence:
        """One sentence that is neither taken nor contains a taken one; takes it."""
        kind, who = self._kinds.deal()
        subject, thing = self._cast(kind, who)
        rng = self._rng
        while True:
            frame = self._grammar.draw("NEARBY" if kind == "near" else "FRAME", rng)
            words = tuple({"SUBJECT": subject, "OBJECT": thing}.get(word, word) for word in frame)
            if not _contains(words, taken):
                taken.add(" ".join(words))
                at = frame.index("OBJECT") if thing else -1
                return Sentence(words, kind, subject, thing, at, who == "person" and kind != "near")
            if rng is self._rng:  # what is taken depends on the version; that must not shift all later draws
                rng = random.Random(f"{self._again} {len(taken)}")


def _contains(words: tuple[str, ...], taken: set[str]) -> bool:
    """Whether the words, or some of them in a row, are a taken sentence (the shortest has six words)."""
    ends = range(6, len(words) + 1)
    return any(" ".join(words[start:end]) in taken for end in ends for start in range(end - 5))


def write_sets(seed: int, far_cues: str, sizes: dict[str, int]) -> dict[str, list[Sentence]]:
    """All sentences of the corpus; none is the same as, or contains, one written before it.

    Dev, test and hard come first, so none of their sentences stands in the text of a language model.

    Args:
        seed: fixes everything.
        far_cues: "text": labelled speech never has a far word together with its cue; "speech": it does.
            Dev, test and hard are the same in both, unlabelled and text but for a few sentences.
        sizes: set -> number of sentences.
    """
    taken: set[str] = set()
    sets = {}
    for name in SIZES:  # in this order: what comes first does not depend on the sizes of what follows
        mix, without = (LABELLED[far_cues], HELD_BACK) if name == "train" else (SHOWS_CUES, frozenset())
        writer = _Writer(seed, name, mix, without)
        sets[name] = [writer.write(taken) for _ in range(sizes[name])]
    return sets
