"""Picture of how near recognisers come to a BERT's embeddings while they are trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from speechkit.metrics.plots import COLOURS, Drawn, figure, read_curves

TERM = "loss_embedding"


def draw_distances(exp: Path, systems: Sequence[str], folder: Path) -> Drawn:
    """One picture of the regression's distance over updates: a colour a system, dev solid, training dotted.

    Neighbours whose names begin alike, up to the first `_`, share axes.

    Args:
        exp: folder of the systems.
        systems: their names; those without knowledge transfer are left out.
        folder: for the PNG.
    """
    runs = {}
    for system in dict.fromkeys(systems):
        files = sorted((exp / system).glob("seed*/metrics.jsonl"))
        if curves := [found for found in (read_curves(path, TERM) for path in files) if found]:
            runs[system] = curves
    groups = {kind: list(names) for kind, names in groupby(runs, lambda name: name.partition("_")[0])}
    if not groups:
        return []
    path = folder / "embedding_distances.png"
    with figure(path, (4.6 * len(groups), 3.6), len(groups)) as axes:
        for each, names in zip(axes, groups.values()):
            for colour, name in zip(COLOURS, names):
                for number, curves in enumerate(runs[name]):
                    for kind, line in (("train", ":"), ("dev", "-")):
                        label = name if (number, kind) == (0, "dev") else None
                        if (kind, TERM) in curves:
                            each.plot(*curves[kind, TERM].T, line, color=colour, label=label)
            each.set(xlabel="updates", ylabel="distance, summed over tokens", ylim=(0, None))
            each.set_title("To BERT's embeddings", loc="left")
            each.legend(fontsize=8)
    return [("Distance to BERT's embeddings over updates (dotted: training)", path)]
