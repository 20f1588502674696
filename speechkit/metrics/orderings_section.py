"""What the results say to the orderings that a recipe expects."""

from __future__ import annotations

from collections.abc import Sequence

from speechkit.metrics import markdown
from speechkit.metrics.groups import Row
from speechkit.metrics.significance import Comparison, p_text
from speechkit.orderings import Ordering


def orderings_section(rows: Sequence[Row], orderings: Sequence[Ordering]) -> str:
    """A table of the expectations that the rows of one set can answer; empty without any."""
    scored = {row.name: row for row in rows}
    lines = []
    for ordering in orderings:
        first, second = scored.get(ordering.first), scored.get(ordering.second)
        if first is not None and second is not None:
            lines.append([f"`{ordering.claim}`", *_answer(first, second, ordering.words)])
    head = ["expected", "seeds", "first %", "second %", "difference", "p", "found"]
    return markdown.table(head, lines) if lines else ""


def _answer(first: Row, second: Row, words: str | None) -> list[str]:
    seeds = f"{len(first.seeds)}, {len(second.seeds)}"
    found = first.against(second, words=words)
    if found is None:
        return [seeds, "-", "-", "-", "-", "not comparable: other references, or no such words"]
    difference = f"{found.delta:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return [seeds, f"{found.rate_a:.2f}", f"{found.rate_b:.2f}", difference, p_text(found.p), _found(found)]


def _found(found: Comparison) -> str:
    if not found.distinguishable:
        return "not distinguishable"
    return "holds" if found.delta < 0 else "reversed"
