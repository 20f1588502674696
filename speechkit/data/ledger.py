"""The ledger: one fate for every utterance in every stage; hours in = hours kept + hours dropped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from speechkit.data.tables import shown
from speechkit.errors import InputError
from speechkit.files import write_jsonl

Kind = Literal["train", "evaluation"]


@dataclass(frozen=True)
class Fate:
    """What became of one utterance; `seconds` is its length before the stage, 0 when it is unknown."""

    stage: str
    utterance: str
    kept: bool
    seconds: float
    reason: str = ""
    detail: str = ""


class Ledger:
    """The account of one stage.

    Lengths are held in whole microseconds, so that the columns of the summary add up exactly.

    Args:
        stage: its name, such as "format".
        kind: "train", where a small share may be dropped, or "evaluation", where nothing may.
        max_dropped: for "train", the largest share of utterances, and of seconds, that may be dropped.
    """

    def __init__(self, stage: str, kind: Kind = "train", max_dropped: float = 0.005) -> None:
        if kind not in ("train", "evaluation"):
            raise ValueError(f"kind must be 'train' or 'evaluation', not {kind!r}")
        self.stage, self.kind, self.max_dropped = stage, kind, max_dropped
        self.fates: list[Fate] = []

    def keep(self, utterance: str, seconds: float) -> None:
        """Notes that an utterance of this length goes on to the next stage."""
        self.fates.append(Fate(self.stage, utterance, True, seconds))

    def drop(self, utterance: str, seconds: float, reason: str, detail: str = "") -> None:
        """Notes that an utterance ends here.

        Args:
            utterance: its id.
            seconds: its length, 0 when it is unknown.
            reason: a short text that is the same for all utterances dropped for this reason.
            detail: what exactly was wrong with this one.
        """
        self.fates.append(Fate(self.stage, utterance, False, seconds, reason, detail))

    @property
    def kept(self) -> list[str]:
        """Ids of the utterances kept, in the order noted."""
        return [fate.utterance for fate in self.fates if fate.kept]

    @property
    def dropped(self) -> list[Fate]:
        """The utterances dropped, in the order noted."""
        return [fate for fate in self.fates if not fate.kept]

    def check(self, utterances: Iterable[str] | None = None) -> None:
        """Fails unless every utterance has exactly one fate and no more were dropped than may be.

        Args:
            utterances: all ids that came in; None leaves out the comparison with them.

        Raises:
            InputError: two fates, no fate, a fate of an unknown utterance, or too much dropped.
        """
        seen: set[str] = set()
        twice = [fate.utterance for fate in self.fates if fate.utterance in seen or seen.add(fate.utterance)]
        self._refuse(twice, "more than one fate")
        if utterances is not None:
            expected = set(utterances)
            self._refuse(sorted(expected - seen), "no fate")
            self._refuse(sorted(seen - expected), "a fate without having come in")
        self._check_ceiling()

    def _refuse(self, utterances: list[str], what: str) -> None:
        if utterances:
            names = shown(", ".join(utterances))
            raise InputError(f"stage {self.stage}: {len(utterances)} utterance(s) with {what}: {names}")

    def _check_ceiling(self) -> None:
        dropped = self.dropped
        if not dropped:
            return
        first = f"{dropped[0].utterance}: {dropped[0].reason}"
        if self.kind == "evaluation":
            raise InputError(
                f"stage {self.stage}: {len(dropped)} of {len(self.fates)} utterances cannot be used "
                f"({first}); nothing may be dropped from an evaluation set: mend the data"
            )
        seconds_in = _micros(self.fates)
        share = max(len(dropped) / len(self.fates), _micros(dropped) / seconds_in if seconds_in else 0)
        if share > self.max_dropped:
            raise InputError(
                f"stage {self.stage}: {len(dropped)} of {len(self.fates)} utterances dropped ({first}), "
                f"a share of {share:.4f} where at most {self.max_dropped} may be"
            )

    def write(self, path: str | Path) -> None:
        """Writes one JSON line for each utterance, atomically."""
        write_jsonl(path, (vars(fate) for fate in self.fates))

    def summary(self) -> str:
        """A table of utterances and hours: in, kept, dropped, and dropped for each reason."""
        rows = [("in", self.fates), ("kept", [fate for fate in self.fates if fate.kept])]
        rows.append(("dropped", self.dropped))
        for reason in sorted({fate.reason for fate in self.dropped}):
            rows.append((f"  {reason}", [fate for fate in self.dropped if fate.reason == reason]))
        width = max(len(name) for name, _ in rows)
        lines = [f"{self.stage:<{width}}  utterances        hours"]
        for name, fates in rows:
            lines.append(f"{name:<{width}}  {len(fates):>10}  {_micros(fates) / 3.6e9:>11.6f}")
        return "\n".join(lines)


def _micros(fates: list[Fate]) -> int:
    return sum(round(fate.seconds * 1e6) for fate in fates)


def read_ledger(path: str | Path) -> list[Fate]:
    """Reads what `Ledger.write` wrote.

    Raises:
        InputError: no such file, or a line that is not a fate; it names `file:line`.
    """
    fates = []
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            fates.append(Fate(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}:{number}: not a line of a ledger: {error}") from None
    return fates
