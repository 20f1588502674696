"""Pictures of training: how codes, predictions and gates develop, and what each block of an encoder knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from speechkit.errors import InputError
from speechkit.metrics.plots import COLOURS, MARKS, figure, read_curves

PANELS = {
    "perplexity": (r"(\w+_)?perplexity(_[\w-]+)?", "codes or classes in use"),
    "accuracy": (r"accuracy(_[\w-]+)?", "share of predictions that are right"),
    "gates": (r"gate_\w+", "mean of the gates: how much is let in"),
    "distance": ("loss_embedding", "distance to BERT's embeddings, summed over tokens"),
    "truth": ("truth|gold", "share of what BERT reads that is the truth"),
    "masked tokens": (
        r"(loss_)?(audio|video|both)|entropy_(audio|video)",
        "nats a masked token; entropy: who only knows frequencies",
    ),
    "coverage": (r"coverage_\w+", "share of tokens that is masked"),
    "loss": ("bits|loss", "bits, or the loss that is trained on"),
}
"""Title of each panel -> its curves' names in metrics.jsonl (a regular expression), and its vertical axis."""


def draw_pretraining(metrics: Path, path: Path) -> None:
    """Draws a run's perplexities, accuracies, gates, distances and losses: dev solid, training dotted.

    Args:
        metrics: metrics.jsonl of the run.
        path: the PNG.

    Raises:
        InputError: no such file, a line that is not JSON, or a run without any of these.
    """
    if not metrics.is_file():
        raise InputError(f"{metrics}: no such file; is this the folder of a run?")
    found = {title: read_curves(metrics, names) for title, (names, _) in PANELS.items()}
    found = {title: curves for title, curves in found.items() if curves}
    if not found.keys() - {"loss"}:
        raise InputError(
            f"{metrics}: neither perplexity nor accuracy nor gates nor distances in it; is this a run of "
            "pre-training, or of a system with BERT?"
        )
    with figure(path, (4.2 * len(found), 3.6), len(found)) as axes:
        for each, (title, curves) in zip(axes, found.items()):
            names = list(dict.fromkeys(name for _, name in curves))
            for index, name in enumerate(names):
                _curve(each, curves, name, COLOURS[index % len(COLOURS)])
            each.set(xlabel="updates", ylabel=PANELS[title][1])
            each.set_xlim(left=0)
            each.set_ylim(bottom=0)
            each.set_title(title.capitalize(), loc="left")
            each.legend(fontsize=8)


def _curve(axes, curves: Mapping, name: str, colour: str) -> None:
    lines = (("train", {"linewidth": 1, "linestyle": ":"}), ("dev", {"linewidth": 1.8}))
    for kind, line in lines:
        if (kind, name) in curves:
            mark = {"marker": "o", "markersize": 3} if len(curves[kind, name]) == 1 else {}
            axes.plot(*curves[kind, name].T, color=colour, label=f"{name}, {kind}", **line, **mark)


def draw_probe(accuracies: Mapping[int, float], chance: float, title: str, path: Path) -> None:
    """Draws the accuracy of a linear classifier over the blocks of an encoder.

    Args:
        accuracies: block -> share of frames that are right.
        chance: the same for always saying the most frequent label.
        title: what was classified.
        path: the PNG.
    """
    with figure(path, (6, 3.8)) as (axes,):
        layers = sorted(accuracies)
        rates = [100 * accuracies[layer] for layer in layers]
        axes.plot(layers, rates, MARKS[0], color=COLOURS[0], linestyle="-", label="linear classifier")
        axes.axhline(100 * chance, color="#707070", linestyle=":", label="always the most frequent label")
        best = max(layers, key=lambda layer: accuracies[layer])
        axes.annotate(
            f"{100 * accuracies[best]:.1f}",
            (best, 100 * accuracies[best]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
        )
        axes.set_xticks(layers)
        axes.set(xlabel="block (0: input of the first)", ylabel="right frames in per cent")
        axes.set_ylim(bottom=0)
        axes.margins(y=0.15)
        axes.set_title(title, loc="left")
        axes.legend()
