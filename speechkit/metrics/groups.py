"""Results grouped for a report: one row a system, set and way of decoding, over its training seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.metrics.result import read_result, read_utterances
from speechkit.metrics.significance import Comparison, Interval, Utterances, interval, paired_test

CLASS_ORDER = ("far", "near", "other", "seen", "unseen")


@dataclass
class Row:
    """The runs of one system on one set with one way of decoding, by seed."""

    system: str
    set: str
    how: str
    metric: str
    results: list[dict[str, Any]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`system/how`, as the systems file names a baseline."""
        return f"{self.system}/{self.how}"

    @property
    def seeds(self) -> list[int]:
        """Seeds that were scored."""
        return [result["seed"] for result in self.results]

    @property
    def best(self) -> dict[str, Any]:
        """The result with the lowest error rate (of the first such seed)."""
        return min(self.results, key=lambda result: result["rate"])

    def rates(self) -> list[float]:
        """The error rate of every seed in per cent."""
        return [result["rate"] for result in self.results]

    def characters(self) -> list[float]:
        """The character error rate of every seed; empty when characters were not counted."""
        return [result["cer"]["rate"] for result in self.results if "cer" in result]

    def class_rate(self, name: str) -> float | None:
        """Wrong words of a class in per cent, the mean over seeds; None without such words."""
        counts = [result["classes"][name] for result in self.results if name in result.get("classes", {})]
        words = sum(count["words"] for count in counts)
        return 100 * sum(count["errors"] for count in counts) / words if words else None

    def utterances(self, characters: bool = False, words: str | None = None) -> list[Utterances]:
        """Counts of words (of a class), or of characters, of every seed as the bootstrap reads them."""
        return [read_utterances(folder, words, characters) for folder in self.folders]

    def interval(self) -> Interval:
        """95 % interval of the mean over seeds."""
        return interval(self.utterances())

    def against(self, baseline: Row, characters: bool = False, words: str | None = None) -> Comparison | None:
        """The paired test, this row less the baseline, of all words or a class; None for other references."""
        try:
            return paired_test(self.utterances(characters, words), baseline.utterances(characters, words))
        except InputError:
            return None


def mean_sd(values: Sequence[float]) -> str:
    """`12.34 ± 0.56` (sample standard deviation), or `12.34` of a single value, or `-` of none."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def gather(exp: Path) -> list[Row]:
    """Reads every `result.json` below `<exp>/<system>/seed<n>/`.

    Returns:
        Rows by set, system and way of decoding; runs by seed.

    Raises:
        InputError: no folder, no result, a broken one, or two results of the same run.
    """
    if not exp.is_dir():
        raise InputError(f"{exp}: no such folder")
    rows: dict[tuple[str, str, str, str], Row] = {}
    for path in sorted(exp.rglob("result.json")):
        result = read_result(path)
        key = (str(result["set"]), result["system"], result["how"], result["metric"])
        row = rows.setdefault(key, Row(key[1], key[0], key[2], key[3]))
        if result["seed"] in row.seeds:
            other = row.folders[row.seeds.index(result["seed"])]
            raise InputError(f"{path}: {row.name} of seed {result['seed']} on {row.set} is also in {other}")
        row.results.append(result)
        row.folders.append(path.parent)
    for row in rows.values():
        order = sorted(range(len(row.results)), key=lambda i: row.results[i]["seed"])
        row.results, row.folders = [row.results[i] for i in order], [row.folders[i] for i in order]
    return [rows[key] for key in sorted(rows)]


def ordered(rows: Sequence[Row], names: Sequence[str], sets: Sequence[str] = ()) -> list[Row]:
    """Rows in the order of `system/how` names and sets; what is not named comes after, by name."""

    def place(values: Sequence[str], value: str) -> tuple[int, str]:
        return (values.index(value), "") if value in values else (len(values), value)

    return sorted(rows, key=lambda row: (place(sets, row.set), row.metric, place(names, row.name)))


def classes(rows: Sequence[Row]) -> list[str]:
    """Single classes of words that any row counts, the usual ones first."""
    found = {name for row in rows for result in row.results for name in result.get("classes", {})}
    single = {name for name in found if "," not in name}
    return [name for name in CLASS_ORDER if name in single] + sorted(single - set(CLASS_ORDER))
