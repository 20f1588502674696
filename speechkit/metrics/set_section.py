"""The part of RESULTS.md about one set: a table with a row a system and way of decoding, and its notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from speechkit.metrics import markdown
from speechkit.metrics.error_rate import Counts
from speechkit.metrics.groups import Row, classes, mean_sd
from speechkit.metrics.markdown import each, escape
from speechkit.metrics.result import read_scorings
from speechkit.metrics.significance import Comparison, Interval, p_text

if TYPE_CHECKING:
    from speechkit.metrics.report import Contents


@dataclass
class About:
    """What a row says beside its results.

    Attributes:
        text: that its language model or BERT has seen.
        units: what its model puts out; empty takes what the results say.
        paper: set -> the paper's number.
    """

    text: str = ""
    units: str = ""
    paper: dict[str, float] = field(default_factory=dict)


@dataclass
class _Line:
    """A line of the table; one that was not run has no row, and stands there for the paper's number."""

    name: str
    about: About
    row: Row | None
    interval: Interval | None


def set_section(name: str, metric: str, rows: Sequence[Row], contents: Contents) -> str:
    """Table and notes of one set; columns in which no line has anything are left out.

    Args:
        name: of the set.
        metric: such as WER.
        rows: that were scored; what the paper has a number of and was not run comes between.
        contents: of the report.
    """
    lines = _lines(name, rows, contents)
    baseline = next((row for row in rows if row.name == contents.baseline), rows[0] if rows else None)
    paper = any(name in line.about.paper for line in lines)
    titles, table = [], []
    for title, cell in _columns(name, metric, classes(rows), baseline).items():
        cells = [cell(line) for line in lines]
        if any(cells) or (paper and title in (f"{metric} %", "CER %")):
            titles.append(escape(title))
            table.append([text or "-" for text in cells])
    notes = _notes([line for line in lines if line.row], metric, contents) if rows else []
    if paper and contents.paper:
        notes.append(f"Paper: {escape(contents.paper)}.")
    return "\n\n".join([markdown.table(titles, zip(*table)), *(["  \n".join(notes)] if notes else [])])


def _lines(name: str, rows: Sequence[Row], contents: Contents) -> list[_Line]:
    """What is planned in its order, then the rest."""
    scored = {row.name: row for row in rows}
    lines = []
    for key in dict.fromkeys([*contents.about, *scored]):
        about, row = contents.about.get(key, About()), scored.get(key)
        if row is not None or name in about.paper:
            lines.append(_Line(key, about, row, row.interval() if row else None))
    return lines


def _columns(
    name: str, metric: str, kinds: Sequence[str], baseline: Row | None
) -> dict[str, Callable[[_Line], str]]:
    """Title -> what stands there in a line, empty for nothing."""

    def of(text: Callable[[Row], str]) -> Callable[[_Line], str]:
        return lambda line: text(line.row) if line.row else ""

    against = f"against {baseline.name}" if baseline else "against"
    return {
        "system": lambda line: escape(line.name.rpartition("/")[0]),
        "decode": lambda line: escape(line.name.rpartition("/")[2]),
        "units": lambda line: escape(line.about.units or _units(line.row)),
        "text": lambda line: escape(line.about.text),
        "seeds": of(lambda row: str(len(row.seeds))),
        f"{metric} %": of(lambda row: mean_sd(row.rates())),
        "95 % interval": lambda line: (
            f"{line.interval.low:.2f} – {line.interval.high:.2f}" if line.row else ""
        ),
        "best run": of(lambda row: Counts.from_dict(row.best["counts"]).brackets()),
        "CER %": of(lambda row: mean_sd(row.characters()) if row.characters() else ""),
        "paper %": lambda line: f"{line.about.paper[name]:g}" if name in line.about.paper else "",
        **{f"{kind} %": of(lambda row, kind=kind: _percent(row.class_rate(kind))) for kind in kinds},
        "oracle %": of(_oracle),
        "RTF": of(lambda row: _speed(row, "seconds_wall")),
        "RTF after encoder": of(lambda row: _speed(row, "seconds_after_encoder")),
        against: lambda line: _against(line.row, baseline),
        "tuned on": of(lambda row: escape(_tuned(row))),
    }


def _units(row: Row | None) -> str:
    return each(result.get("units") for result in row.results) if row else ""


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _oracle(row: Row) -> str:
    """The error rate of the best hypotheses of the N-best lists, and N."""
    found = [result["oracle"] for result in row.results if result.get("oracle")]
    return (
        f"{mean_sd([one['rate'] for one in found])} of {each(one['nbest'] for one in found)}" if found else ""
    )


def _speed(row: Row, key: str) -> str:
    """Seconds of computing for a second of audio, over all seeds."""
    timed = [result for result in row.results if result.get("seconds_audio") and result.get(key) is not None]
    audio = sum(result["seconds_audio"] for result in timed)
    return f"{sum(result[key] for result in timed) / audio:.3g}" if timed else ""


def _against(row: Row | None, baseline: Row | None) -> str:
    if row is None or baseline is None:
        return "not run"
    return "baseline" if row is baseline else verdict(row.against(baseline))


def verdict(found: Comparison | None) -> str:
    """A paired test in a cell's few words; None stands for results that cannot be compared."""
    if found is None:
        return "not comparable: scored against other references"
    if not found.distinguishable:
        return f"{found.delta:+.2f}, not distinguishable ({p_text(found.p)})"
    return f"{found.delta:+.2f} [{found.low:+.2f}, {found.high:+.2f}], {p_text(found.p)}"


def _tuned(row: Row) -> str:
    """The set that options were chosen on, among how many, and which; of every seed where they differ."""
    said = []
    for result in row.results:
        tuned = result.get("tuned_on") or "nothing"
        if isinstance(tuned, dict):
            options = tuned.get("chosen") or {}
            chosen = ", ".join(f"{key} {value}" for key, value in options.items())
            trials = f" ({len(tuned['trials'])} tried)" if tuned.get("trials") else ""
            tuned = Path(str(tuned.get("set"))).name + trials + (f": {chosen}" if chosen else "")
        said.append(tuned)
    return each(said)


def _notes(lines: Sequence[_Line], metric: str, contents: Contents) -> list[str]:
    rows = [line.row for line in lines]
    drawn = sorted({line.interval.drawn for line in lines})
    mean = (
        "mean ± standard deviation over training seeds; " if any(len(row.seeds) > 1 for row in rows) else ""
    )
    notes = [f"{metric}: {mean}intervals and tests by bootstrap ({', '.join(drawn)})."]
    if classes(rows):
        notes.append(
            "Classes: substituted and deleted reference words of the class; insertions belong to none."
        )
    spaces = {row.best["scored"].get("cer_counts_spaces") for row in rows if row.characters()}
    if spaces:
        counted = {True: "counts", False: "does not count"}
        notes.append(f"CER {' or '.join(counted[bool(s)] for s in sorted(spaces, key=bool))} spaces.")
    if any(_oracle(row) for row in rows):
        notes.append("Oracle: the best hypothesis of every N-best list.")
    if any(_speed(row, "seconds_wall") for row in rows):
        notes.append("RTF: seconds of decoding for a second of audio, whole and after the acoustic encoder.")
    lost = sum(result["scored"].get("missing_as_deletions", 0) for row in rows for result in row.results)
    if lost:
        notes.append(f"{lost} missing hypotheses were counted as deletions.")
    if contents.scorings is not None and contents.scorings.is_file():
        notes.append(_scorings(rows, contents.scorings))
    return notes


def _scorings(rows: Sequence[Row], log: Path) -> str:
    found = [line for line in read_scorings(log) if line.get("set") == rows[0].set]
    again = [row.name for row in rows if max(result["scored_times"] for result in row.results) > 1]
    more = f"; more than once: {escape(', '.join(again))}" if again else ""
    different = len({line.get("hypothesis_hash") for line in found})
    return f"This set has been scored with {different} different hypotheses so far{more}."
