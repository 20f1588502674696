"""The part of RESULTS.md about systems with two outputs: which is right, which was kept, what it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from speechkit.metrics import markdown
from speechkit.metrics.fused import FIRST
from speechkit.metrics.groups import CLASS_ORDER, Row, mean_sd
from speechkit.metrics.markdown import escape

SHOWN = 3
"""Examples of each kind in a row."""

Record = Mapping[str, Any]


def fused_section(rows: Sequence[Row]) -> str:
    """A table of the rows that have several outputs, means over seeds, and examples of the first seed.

    Args:
        rows: of one set.

    Returns:
        Empty where no row has several outputs.
    """
    found = {row.name: [result["fusion"] for result in row.results if result.get("fusion")] for row in rows}
    found = {name: records for name, records in found.items() if records}
    if not found:
        return ""
    columns = _columns([record for records in found.values() for record in records])
    lines = []
    for name, records in found.items():
        system, _, how = name.rpartition("/")
        values = (mean_sd([v for v in map(cell, records) if v is not None]) for cell in columns.values())
        lines.append([escape(system), escape(how), str(len(records)), *values])
    head = ["system", "decode", "seeds", *columns]
    kept = [number for number in range(len(head)) if number < 3 or any(line[number] != "-" for line in lines)]
    table = markdown.table(
        [escape(head[number]) for number in kept], [[line[n] for n in kept] for line in lines]
    )
    examples = [_examples(name, records[0]) for name, records in found.items()]
    return "\n\n".join([table, NOTE, *filter(None, examples)])


NOTE = (
    "Errors of the first CTC, of both outputs after the fusion, and of the better of the two everywhere; "
    "utterances in which only one, both or neither has no error, and of which the cross entropy was kept; "
    "reference words that the kept output has right and the first CTC wrong (fixed), or the reverse (broken)."
)


def _columns(records: Sequence[Record]) -> dict[str, Callable[[Record], float | None]]:
    """Title -> what a record says there, or None."""
    names = {name for record in records for name in record["outputs"]}
    outputs = [FIRST, *sorted(names - {FIRST, "ce"}), "ce"]
    classes = {name for record in records for name in record["words"]} - {"all"}
    single = [name for name in CLASS_ORDER if name in classes]
    return {
        **{f"{name} %": _rate(name) for name in outputs},
        "oracle %": lambda record: record["oracle"]["rate"],
        **{f"only {name} right %": _share("right", name) for name in outputs[1:]},
        "both right %": _share("right", "both"),
        "neither right %": _share("right", "neither"),
        "ce kept %": _share("kept", "ce"),
        **{f"{kind} words": _words("all", kind) for kind in ("fixed", "broken")},
        **{f"{name} {kind}": _words(name, kind) for name in single for kind in ("fixed", "broken")},
    }


def _rate(name: str) -> Callable[[Record], float | None]:
    return lambda record: record["outputs"].get(name, {}).get("rate")


def _share(what: str, name: str) -> Callable[[Record], float | None]:
    """Per cent of the utterances; None for an output that the system does not have."""

    def share(record: Record) -> float | None:
        there = name in record["outputs"] or name in ("both", "neither")
        return 100 * record[what].get(name, 0) / record["utterances"] if there else None

    return share


def _words(name: str, kind: str) -> Callable[[Record], float | None]:
    return lambda record: record["words"].get(name, {}).get(kind)


def _examples(name: str, record: Record) -> str:
    """The first examples of each kind: the word, what was heard and what was kept, in the whole sentence."""
    lines = []
    for kind in ("fixed", "broken"):
        for change in [each for each in record["examples"] if each["change"] == kind][:SHOWN]:
            tag = "" if change["tag"] == "-" else f" ({escape(change['tag'])})"
            heard = " became ".join(escape(change[key]) or "nothing" for key in ("before", "after"))
            lines.append(
                f"- {kind}: **{escape(change['word'])}**{tag}, {heard} by {change['source']}, "
                f"in {escape(change['utterance'])}: {escape(change['reference'])}"
            )
    return "\n".join([f"{escape(name)}, words of the first CTC:", "", *lines]) if lines else ""
