"""What a system with two outputs has of either of them, and what it did to the words of its first CTC.

The N-best lists of such a system name the output that each hypothesis is from (`source`): the candidates, the
kept one first, and the reading of the first CTC, which was no candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechkit.metrics.alignment import GAP, align
from speechkit.metrics.error_rate import Counts, count
from speechkit.metrics.nbest import read_nbest

FIRST = "ctc"
"""Source of the first CTC's reading."""

EXAMPLES = 8
"""How many fixed and how many broken words are shown, at most one of each utterance."""

CLASSES_FIRST = ("far", "near")
"""Classes of words whose examples are shown before others."""


@dataclass
class Change:
    """A reference word that the first CTC had wrong and the kept output right (`fixed`), or `broken`.

    Attributes:
        change: "fixed" or "broken".
        word: of the reference.
        tag: its classes, or "-".
        before: what the first CTC has there, "" for nothing.
        after: what the kept output has.
        source: the output that was kept.
        reference, ctc, kept: the three texts.
    """

    utterance: str
    change: str
    word: str
    tag: str
    before: str
    after: str
    source: str
    reference: str
    ctc: str
    kept: str

    @property
    def rank(self) -> int:
        """Smaller for words that are shown first."""
        ranks = [CLASSES_FIRST.index(name) for name in self.tag.split(",") if name in CLASSES_FIRST]
        return min(ranks, default=len(CLASSES_FIRST))


@dataclass
class Reading:
    """One utterance.

    Attributes:
        texts: source -> normalised text.
        candidates: sources that could be kept.
        kept: the source that was.
    """

    utterance: str
    reference: str
    texts: dict[str, str]
    candidates: list[str]
    kept: str

    def errors(self, source: str) -> Counts:
        """Of one output."""
        return count(align(self.reference.split(), self.texts[source].split()))

    def right(self) -> str:
        """Which candidates have no error: the name of the only one, "both" or "neither"."""
        good = [name for name in self.candidates if self.texts[name].split() == self.reference.split()]
        return good[0] if len(good) == 1 else "both" if good else "neither"

    def changes(self, tags: str | None) -> list[Change]:
        """Reference words that were fixed or broken between the first CTC and what was kept."""
        words = self.reference.split()
        if FIRST not in self.texts or self.kept == FIRST:
            return []
        found = [opposite(words, self.texts[name].split()) for name in (FIRST, self.kept)]
        names = tags.split() if tags is not None else ["-"] * len(words)
        texts = (self.kept, self.reference, self.texts[FIRST], self.texts[self.kept])
        return [
            Change(self.utterance, "fixed" if after == word else "broken", word, tag, before, after, *texts)
            for word, tag, before, after in zip(words, names, *found)
            if (before == word) != (after == word)
        ]


def opposite(reference: Sequence[str], hypothesis: Sequence[str]) -> list[str]:
    """What the hypothesis has for each reference word, "" for nothing; inserted words are left out."""
    return [heard for word, heard in align(reference, hypothesis) if word != GAP]


@dataclass
class Fusion:
    """All utterances of a decode folder.

    Attributes:
        readings: of each utterance.
        changes: words that were fixed or broken.
    """

    readings: list[Reading]
    changes: list[Change]

    def record(self) -> dict[str, Any]:
        """JSON-able, for result.json.

        `utterances`; `outputs`: source -> rate and counts; `right`: how many utterances only one candidate,
        both or neither has without error; `kept`: source -> utterances; `oracle`: rate and counts of the
        better candidate of each utterance; `words`: class, or "all" -> fixed and broken; `examples`.
        """
        outputs: dict[str, Counts] = {}
        best = Counts()
        for reading in self.readings:
            errors = {name: reading.errors(name) for name in reading.texts}
            for name, counts in errors.items():
                outputs[name] = outputs.get(name, Counts()) + counts
            best += min((errors[name] for name in reading.candidates), key=lambda counts: counts.errors)
        return {
            "utterances": len(self.readings),
            "outputs": {name: _rate(counts) for name, counts in sorted(outputs.items())},
            "right": dict(Counter(reading.right() for reading in self.readings)),
            "kept": dict(Counter(reading.kept for reading in self.readings)),
            "oracle": _rate(best),
            "words": self._words(),
            "examples": [asdict(change) for kind in ("fixed", "broken") for change in self.examples(kind)],
        }

    def _words(self) -> dict[str, dict[str, int]]:
        words: dict[str, dict[str, int]] = {"all": {"fixed": 0, "broken": 0}}
        for change in self.changes:
            for name in ["all", *(change.tag.split(",") if change.tag != "-" else [])]:
                words.setdefault(name, {"fixed": 0, "broken": 0})[change.change] += 1
        return words

    def examples(self, kind: str) -> list[Change]:
        """Some changes of that kind, one an utterance, words of the interesting classes first."""
        found: dict[str, Change] = {}
        for change in sorted((c for c in self.changes if c.change == kind), key=lambda c: c.rank):
            found.setdefault(change.utterance, change)
        return list(found.values())[:EXAMPLES]

    def table(self) -> str:
        """Every change as a line of fusion.tsv."""
        names = ("utterance", "change", "word", "tag", "before", "after", "source")
        rows = (tuple(str(getattr(change, name)) for name in names) for change in self.changes)
        return "".join("\t".join(row) + "\n" for row in (names, *rows))


def _rate(counts: Counts) -> dict[str, Any]:
    return {"rate": counts.rate, "counts": counts.as_dict()}


def read_fusion(
    path: Path,
    references: Mapping[str, str],
    normalise: Callable[[str], str],
    tags: Mapping[str, str] | None = None,
) -> Fusion | None:
    """Looks at the outputs of a decode with several.

    Args:
        path: `nbest.jsonl` of a decode folder.
        references: normalised, by utterance.
        normalise: applied to the hypotheses.
        tags: utterance -> a tag for each reference word, see `error_rate.count_classes`.

    Returns:
        None where the hypotheses do not say which output they are from, or there is but one output.

    Raises:
        InputError: a line that is no N-best list.
    """
    lists = read_nbest(path) if path.is_file() else {}
    readings = []
    for utterance, reference in references.items():
        named = [each for each in lists.get(utterance, []) if each.get("source")]
        if len(named) > 1:
            texts = {each["source"]: normalise(each["text"]) for each in named}
            candidates = [each["source"] for each in named if each.get("candidate", True)]
            readings.append(Reading(utterance, reference, texts, candidates, named[0]["source"]))
    if not readings:
        return None
    changes = (reading.changes(tags.get(reading.utterance) if tags else None) for reading in readings)
    return Fusion(readings, [change for some in changes for change in some])


def fusion_line(record: Mapping[str, Any]) -> str:
    """What `record` says, in a line: `%FUSION right: 80.00 both, ...`, all in per cent of the utterances."""

    def shares(counts: Mapping[str, int], names: Iterable[str]) -> str:
        return ", ".join(f"{100 * counts.get(name, 0) / record['utterances']:.2f} {name}" for name in names)

    kept, words = sorted(record["kept"]), record["words"]["all"]
    right = ["both", *sorted({*kept, *record["right"]} - {"both", "neither"}), "neither"]
    return (
        f"%FUSION right: {shares(record['right'], right)}; kept: {shares(record['kept'], kept)}; "
        f"oracle {record['oracle']['rate']:.2f}; words {words['fixed']} fixed, {words['broken']} broken"
    )
