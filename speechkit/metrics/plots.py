"""Pictures of a report, as PNG: error rates with intervals, errors by class of words, learning curves.

Colours are Okabe and Ito's, which people with any common colour blindness can tell apart; marks and
lines differ as well. The same results give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechkit.errors import InputError
from speechkit.files import atomic_write
from speechkit.metrics.groups import Row, classes

if TYPE_CHECKING:
    from speechkit.metrics.report import Point

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "speechkit",
}
Drawn = list[tuple[str, Path]]
CURVES = 7


@contextmanager
def figure(
    path: Path, size: tuple[float, float], columns: int = 1, heights: Sequence[float] = (1,)
) -> Iterator[Any]:
    """Axes to draw on; the picture is written, whole or not at all, when the block ends.

    Args:
        path: the PNG.
        size: inches.
        columns: number of axes, side by side.
        heights: of the rows of axes, one below the other, as shares.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        drawing, axes = pyplot.subplots(
            *(len(heights), columns),
            figsize=size,
            squeeze=False,
            layout="constrained",
            gridspec_kw={"height_ratios": heights},
        )
        try:
            yield axes.flatten()
            with atomic_write(path, "wb") as file:
                drawing.savefig(file, format="png", dpi=150, metadata={"Software": None})
        finally:
            pyplot.close(drawing)


def _file(folder: Path, *parts: str) -> Path:
    """A file name of plain characters, as names of sets and systems come from data."""
    return folder / (re.sub(r"[^A-Za-z0-9_.-]", "_", "_".join(parts)) + ".png")


def draw_error_rates(rows: Sequence[Row], folder: Path) -> Drawn:
    """A picture a set: each row's mean error rate, its 95 % interval, and every seed as a small mark."""
    drawn = []
    for (name, metric), group in groupby(rows, key=lambda row: (row.set, row.metric)):
        group = list(group)
        path = _file(folder, metric.lower(), name)
        with figure(path, (8, 1.3 + 0.45 * len(group))) as (axes,):
            for place, row in enumerate(group):
                _interval(axes, place, row)
            _rows_axis(axes, group)
            seeds = "; ticks: training seeds" if any(len(row.seeds) > 1 for row in group) else ""
            axes.set_xlabel(f"{metric} in per cent (bar: 95 % interval{seeds})")
            axes.set_xlim(left=0)
            axes.set_title(f"{metric} on {name}", loc="left")
        drawn.append((f"{metric} on {name}", path))
    return drawn


def _interval(axes, place: int, row: Row) -> None:
    found = row.interval()
    axes.plot([found.low, found.high], [place, place], color=COLOURS[0], linewidth=2, solid_capstyle="butt")
    axes.plot(found.rate, place, "o", color=COLOURS[0], markersize=7)
    if len(row.seeds) > 1:
        axes.plot(row.rates(), [place] * len(row.seeds), "|", color="#000000", markersize=9)
    axes.annotate(
        f"{found.rate:.1f}",
        (found.high, place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
    )


def _rows_axis(axes, rows: Sequence[Row]) -> None:
    """Names of the rows on the vertical axis, the first row on top."""
    one_system = len({row.system for row in rows}) == 1
    axes.set_yticks(range(len(rows)), [row.how if one_system else f"{row.system}  {row.how}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)


def draw_classes(rows: Sequence[Row], folder: Path) -> Drawn:
    """A picture a set that has word classes: for each row the share of wrong words of every class."""
    drawn = []
    for (name, _), group in groupby(rows, key=lambda row: (row.set, row.metric)):
        group = list(group)
        kinds = classes(group)[: len(COLOURS)]
        if not kinds:
            continue
        path = _file(folder, "classes", name)
        with figure(path, (8, 1.6 + 0.45 * len(group))) as (axes,):
            for index, kind in enumerate(kinds):
                rates = [row.class_rate(kind) for row in group]
                known = [(rate, place) for place, rate in enumerate(rates) if rate is not None]
                x, y = np.array(known).T
                y += 0.09 * (index - (len(kinds) - 1) / 2)  # a little apart, so that none hides another
                axes.plot(x, y, MARKS[index], color=COLOURS[index], markersize=8, label=kind, alpha=0.9)
            _rows_axis(axes, group)
            axes.set_xlim(left=0)
            axes.set_xlabel("wrong words of the class in per cent")
            axes.set_title(f"Errors by class of words on {name}", loc="left", pad=28)
            axes.legend(ncols=len(kinds), loc="lower left", bbox_to_anchor=(-0.01, 1.0), handletextpad=0.2)
        drawn.append((f"Errors by class of words on {name}", path))
    return drawn


def draw_points(points: Sequence[Point], folder: Path) -> Drawn:
    """A picture a set and way of decoding: CER over labelled speech, a line a curve, every seed a mark."""
    drawn = []
    for name, how in dict.fromkeys((point.row.set, point.row.how) for point in points):
        curves: dict[str, list[tuple[float, list[float]]]] = {}
        for point in points:
            if (point.row.set, point.row.how) == (name, how) and point.row.characters():
                curves.setdefault(point.curve, []).append((point.minutes, point.row.characters()))
        if not curves:
            continue
        path = _file(folder, "labelled_speech", name, how)
        with figure(path, (7, 4.2)) as (axes,):
            for index, (curve, values) in enumerate(curves.items()):
                colour, mark = COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)]
                values.sort()
                for minutes, rates in values:
                    axes.plot([minutes] * len(rates), rates, mark, color=colour, markersize=3, alpha=0.6)
                x, y = zip(*((minutes, np.mean(rates)) for minutes, rates in values))
                axes.plot(x, y, mark, color=colour, linestyle="-", markersize=7, label=curve)
            axes.set_xscale("log")
            ticks = sorted({minutes for values in curves.values() for minutes, _ in values})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.set(xlabel="minutes of labelled speech", ylabel="CER in per cent")
            axes.set_ylim(bottom=0)
            axes.set_title(f"CER on {name}, {how} (small marks: seeds)", loc="left")
            axes.legend()
        drawn.append((f"CER on {name} over labelled speech, {how}", path))
    return drawn


def read_curves(path: Path, wanted: str = "loss|wer") -> dict[tuple[str, str], np.ndarray]:
    """Reads a run's metrics.jsonl.

    Args:
        path: the file.
        wanted: regular expression of the names to read.

    Returns:
        `(kind, name)`, such as ("dev", "wer"), -> `(N, 2)` array of update and value.

    Raises:
        InputError: a line that is not JSON (file:line).
    """
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise InputError(f"{path}:{number}: not JSON") from None
        for name in filter(re.compile(wanted).fullmatch, row):
            if isinstance(row[name], int | float):
                curves.setdefault((row.get("kind", ""), name), []).append((row["update"], row[name]))
    return {key: np.array(points, dtype=float) for key, points in curves.items()}


def draw_learning_curves(exp: Path, systems: Sequence[str], folder: Path) -> Drawn:
    """One picture: training and dev loss, and dev WER, over updates; a colour a system, a line a seed."""
    runs = {}
    for system in list(dict.fromkeys(systems))[:CURVES]:
        # A run may still be going, or have been trained elsewhere: what has no curve is left out.
        files = sorted((exp / system).glob("seed*/metrics.jsonl"))
        curves = [found for found in map(read_curves, files) if ("dev", "loss") in found]
        if curves:
            runs[system] = curves
    if not runs:
        return []
    error_rates = any(("dev", "wer") in curve for curves in runs.values() for curve in curves)
    path = _file(folder, "learning_curves")
    with figure(path, (9 if error_rates else 5.5, 3.6), 2 if error_rates else 1) as axes:
        for index, (system, curves) in enumerate(runs.items()):
            for number, curve in enumerate(curves):
                _curve(axes, curve, COLOURS[index], system if number == 0 else None)
        axes[0].plot([], [], color="#707070", linewidth=1.8, label="dev")
        axes[0].plot([], [], color="#707070", linewidth=1, linestyle=":", label="train")
        axes[0].set(xlabel="updates", ylabel="loss")
        axes[0].set_title("Loss", loc="left")
        axes[0].legend()
        if error_rates:
            axes[1].set(xlabel="updates", ylabel="WER in per cent", ylim=(0, 105))
            axes[1].set_title("Greedy WER on dev", loc="left")
        for each in axes:
            each.set_xlim(left=0)
    return [("Learning curves", path)]


def _curve(axes, curve: dict[tuple[str, str], np.ndarray], colour: str, label: str | None) -> None:
    for kind, line in (("train", {"linewidth": 1, "linestyle": ":"}), ("dev", {"linewidth": 1.8})):
        if (kind, "loss") in curve:
            axes[0].plot(*curve[kind, "loss"].T, color=colour, label=label if kind == "dev" else None, **line)
    if ("dev", "wer") in curve:
        x, y = curve["dev", "wer"].T
        axes[1].plot(x, np.minimum(y, 105), color=colour, linewidth=1.8)
