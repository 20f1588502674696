"""Word, character and phone error rates, always of a whole corpus: all errors over all reference units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from speechkit.errors import InputError
from speechkit.metrics.alignment import GAP, Pairs, align, operation

NAMED = 5


@dataclass(frozen=True)
class Counts:
    """Errors against reference units (words, characters or phones)."""

    units: int = 0
    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0

    @property
    def errors(self) -> int:
        """All errors."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Errors in per cent of the reference units; InputError when there are none."""
        if not self.units:
            raise InputError("no reference words: an error rate is not defined")
        return 100 * self.errors / self.units

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.units + other.units,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
        )

    def as_dict(self, name: str = "words") -> dict[str, int]:
        """JSON-able, with the reference units called `name`."""
        parts = {"ins": self.insertions, "del": self.deletions, "sub": self.substitutions}
        return {name: self.units, "errors": self.errors, **parts}

    @classmethod
    def from_dict(cls, values: Mapping[str, int], name: str = "words") -> Counts:
        """What `as_dict` made."""
        return cls(values[name], values["ins"], values["del"], values["sub"])

    def line(self) -> str:
        """Kaldi's form: `4.53 [ 23 / 508, 4 ins, 3 del, 16 sub ]`."""
        return f"{self.rate:.2f} {self.brackets()}"

    def brackets(self) -> str:
        """The counts of Kaldi's form: `[ 23 / 508, 4 ins, 3 del, 16 sub ]`."""
        parts = f"{self.insertions} ins, {self.deletions} del, {self.substitutions} sub"
        return f"[ {self.errors} / {self.units}, {parts} ]"


@dataclass
class UtteranceScore:
    """One utterance.

    Attributes:
        pairs: the alignment of its words.
        words: errors of the words (or phones).
        characters: errors of the characters, or None where characters are not counted.
        classes: for each class of words `[reference words, substituted or deleted ones]`.
    """

    utterance: str
    speaker: str
    pairs: Pairs
    words: Counts
    characters: Counts | None = None
    classes: dict[str, list[int]] = field(default_factory=dict)


def count(pairs: Pairs) -> Counts:
    """Errors of an alignment."""
    kinds = Counter(operation(*pair) for pair in pairs)
    return Counts(sum(reference != GAP for reference, _ in pairs), kinds["I"], kinds["D"], kinds["S"])


def count_characters(reference: str, hypothesis: str, spaces: bool) -> Counts:
    """Errors of code points; a space is a character when `spaces`."""
    from kaldialign import edit_distance

    if not spaces:
        reference, hypothesis = reference.replace(" ", ""), hypothesis.replace(" ", "")
    found = edit_distance(list(reference), list(hypothesis))
    return Counts(len(reference), found["ins"], found["del"], found["sub"])


def count_classes(utterance: str, pairs: Pairs, tags: str) -> dict[str, list[int]]:
    """Errors of tagged reference words; inserted words belong to no class.

    Args:
        utterance: its id, for messages.
        pairs: the alignment.
        tags: a tag for each reference word: classes with commas between them, or `-`. Each class counts,
            and so does the combination.

    Returns:
        Class or combination -> `[reference words, substituted or deleted ones]`.

    Raises:
        InputError: not one tag for each word.
    """
    references = [pair for pair in pairs if pair[0] != GAP]
    words = tags.split()
    if len(words) != len(references):
        raise InputError(
            f"utterance {utterance}: word_tags has {len(words)} tags for {len(references)} reference words"
        )
    classes: dict[str, list[int]] = {}
    for (reference, hypothesis), tag in zip(references, words):
        for name in dict.fromkeys([*tag.split(","), tag]) if tag != "-" else ():
            counts = classes.setdefault(name, [0, 0])
            counts[0] += 1
            counts[1] += reference != hypothesis
    return classes


def check_ids(references: Iterable[str], hypotheses: Iterable[str]) -> None:
    """Raises InputError, naming some, unless both have the same utterances."""
    references, hypotheses = set(references), set(hypotheses)
    parts = []
    for what, ids in (("missing", references - hypotheses), ("unknown", hypotheses - references)):
        if ids:
            some = ", ".join(sorted(ids)[:NAMED]) + (" ..." if len(ids) > NAMED else "")
            parts.append(f"{len(ids)} {what} ({some})")
    if parts:
        raise InputError(f"hypotheses do not match the references: {'; '.join(parts)}; decode the whole set")


def score(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    speakers: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    characters: bool = True,
    spaces: bool = True,
) -> list[UtteranceScore]:
    """Scores normalised hypotheses against normalised references, utterance by utterance.

    Args:
        references: utterance -> words with spaces between them.
        hypotheses: the same utterances.
        speakers: utterance -> speaker; without it every utterance is a speaker of its own.
        tags: utterance -> a tag for each reference word.
        characters: whether to count characters too.
        spaces: whether a space between words is a character.

    Raises:
        InputError: other utterances, an utterance without speaker or with the wrong number of tags.
    """
    check_ids(references, hypotheses)
    scores = []
    for utterance, reference in references.items():
        hypothesis = hypotheses[utterance]
        if speakers is not None and utterance not in speakers:
            raise InputError(f"utterance {utterance}: has no speaker in utt2spk")
        if tags is not None and utterance not in tags:
            raise InputError(f"utterance {utterance}: has no line in word_tags")
        pairs = align(reference.split(), hypothesis.split())
        scores.append(
            UtteranceScore(
                utterance,
                utterance if speakers is None else speakers[utterance],
                pairs,
                count(pairs),
                count_characters(reference, hypothesis, spaces) if characters else None,
                {} if tags is None else count_classes(utterance, pairs, tags[utterance]),
            )
        )
    return scores


def total(scores: Iterable[UtteranceScore]) -> Counts:
    """Word errors of all utterances together."""
    return sum((score.words for score in scores), Counts())


def wer(references: Iterable[str], hypotheses: Iterable[str]) -> Counts:
    """Word errors of parallel texts, as they are; for quick use from Python."""
    pairs = zip(references, hypotheses, strict=True)
    return sum((count(align(r.split(), h.split())) for r, h in pairs), Counts())


def cer(references: Iterable[str], hypotheses: Iterable[str], spaces: bool = True) -> Counts:
    """Character errors of parallel texts, as they are; for quick use from Python."""
    pairs = zip(references, hypotheses, strict=True)
    return sum((count_characters(r, h, spaces) for r, h in pairs), Counts())


def confusions(scores: Iterable[UtteranceScore]) -> dict[str, Counter[tuple[str, str]]]:
    """Counts of `(reference, hypothesis)` pairs for "substitution", "deletion" and "insertion"."""
    names = {"S": "substitution", "D": "deletion", "I": "insertion"}
    found: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in names.values()}
    for utterance in scores:
        for pair in utterance.pairs:
            kind = operation(*pair)
            if kind != "C":
                found[names[kind]][pair] += 1
    return found


def by_speaker(scores: Iterable[UtteranceScore]) -> dict[str, list[UtteranceScore]]:
    """The utterances of every speaker, speakers by name."""
    speakers: dict[str, list[UtteranceScore]] = {}
    for utterance in scores:
        speakers.setdefault(utterance.speaker, []).append(utterance)
    return dict(sorted(speakers.items()))


def add_classes(scores: Iterable[UtteranceScore]) -> dict[str, dict[str, int]]:
    """For each class of words its reference words and how many were wrong, over all utterances."""
    classes: dict[str, dict[str, int]] = {}
    for utterance in scores:
        for name, (words, errors) in utterance.classes.items():
            counts = classes.setdefault(name, {"words": 0, "errors": 0})
            counts["words"] += words
            counts["errors"] += errors
    return dict(sorted(classes.items()))
