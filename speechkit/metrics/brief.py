"""A short table of one set, for a README that leads to RESULTS.md."""

from __future__ import annotations

from speechkit.metrics import markdown
from speechkit.metrics.groups import classes, mean_sd
from speechkit.metrics.markdown import escape
from speechkit.metrics.report import END, START, Contents, by_set


def brief(contents: Contents) -> str:
    """The generated part of a README, markers included: of the first set and metric that has results, titles,
    error rates, and those of classes of words."""
    (_, metric), rows = next((key, rows) for key, rows in by_set(contents).items() if rows)
    kinds = classes(rows)
    head = ["system", "decoding", "seeds", f"{metric} %", "95 % interval", *(f"{kind} %" for kind in kinds)]
    lines = []
    for row in rows:
        interval, rates = row.interval(), [row.class_rate(kind) for kind in kinds]
        lines.append(
            [
                escape(contents.titles.get(row.system) or row.system),
                escape(row.how),
                str(len(row.seeds)),
                mean_sd(row.rates()),
                f"{interval.low:.2f} – {interval.high:.2f}",
                *("-" if rate is None else f"{rate:.2f}" for rate in rates),
            ]
        )
    return "\n\n".join([START, markdown.table(head, lines), END])
