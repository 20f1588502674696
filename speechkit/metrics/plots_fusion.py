"""Pictures of one utterance: where tokens listen, lie and fire, and how speech and a BERT read each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.metrics.look import Look
from speechkit.metrics.plots import COLOURS, MARKS, Drawn, figure, read_curves
from speechkit.metrics.plots_frames import draw_spectrogram

READERS = {
    "embedding": "Embedding Attention: where each embedding listens",
    "linguistic": "linguistic-guided: where each token of BERT's output listens",
    "acoustic": "acoustic-guided: which token each frame reads",
    "replacement": "position queries: where each position listens",
    "attention": "attention of the decoder: where each token listens",
    "lattice": "share of all alignments in which a frame is reached before this label",
    "q": "weight of each frame for the embedding of a label",
}
"""Name in `Look.attention` or `Look.shares` -> title."""

FULL = 1e-4  # what a sum may lack of a whole number by rounding


@dataclass
class Clock:
    """When frames are.

    Attributes:
        rate: frames a second.
        offset: seconds to the middle of the first frame.
    """

    rate: float
    offset: float

    def times(self, frames: int) -> np.ndarray:
        """`(T,)` seconds of the frames' middles."""
        return self.offset + np.arange(frames) / self.rate

    def edges(self, frames: int) -> tuple[float, float]:
        """Where the first frame begins and the last one ends."""
        return self.offset - 0.5 / self.rate, self.offset + (frames - 0.5) / self.rate


def fires(alpha: np.ndarray) -> np.ndarray:
    """The frame in which the sum of `(T,)` weights reaches 1, 2, ..."""
    sums = np.cumsum(np.asarray(alpha, dtype=np.float64))
    whole = int(np.floor(sums[-1] + FULL)) if len(sums) else 0
    return np.searchsorted(sums, np.arange(1, whole + 1) - FULL)


def draw_gates(exp: Path, systems: Sequence[str], folder: Path) -> Drawn:
    """One picture of the means of the gates over updates of training: a gate an axes, a colour a system.

    Args:
        exp: folder of the systems.
        systems: their names; those that log no gate are left out.
        folder: for the PNG.
    """
    runs: dict[str, list[dict[str, np.ndarray]]] = {}
    for system in dict.fromkeys(systems):
        for path in sorted((exp / system).glob("seed*/metrics.jsonl")):
            curves = {
                name: xy for (kind, name), xy in read_curves(path, r"gate_\w+").items() if kind == "train"
            }
            if curves and len(runs.keys() | {system}) <= len(COLOURS):
                runs.setdefault(system, []).append(curves)
    gates = list(dict.fromkeys(name for seeds in runs.values() for curves in seeds for name in curves))
    if not gates:
        return []
    path = folder / "gates.png"
    with figure(path, (4.2 * len(gates), 3.6), len(gates)) as axes:
        for each, gate in zip(axes, gates):
            for colour, (system, seeds) in zip(COLOURS, runs.items()):
                for number, curves in enumerate(curves for curves in seeds if gate in curves):
                    each.plot(*curves[gate].T, color=colour, label=system if number == 0 else None)
            each.set(xlabel="updates", ylabel="mean of the gate", ylim=(0, 1))
            each.set_title(gate.removeprefix("gate_").capitalize(), loc="left")
            each.legend(fontsize=8)
    return [("Gates over updates", path)]


def draw_look(waveform: np.ndarray, look: Look, clock: Clock, title: str, path: str | Path) -> None:
    """Draws, under a spectrogram: firing, gates of frames, attention and shares over frames, gates of tokens.

    Args:
        waveform: `(S,)` at 16 kHz.
        look: what the system did; what it has not is left out.
        clock: of its frames.
        title: of the picture.
        path: the PNG.
    """
    panels: list[tuple[float, Callable[[Any], None]]] = [(1.6, partial(_speech, waveform, look, clock))]
    if look.alpha is not None:
        panels += [(1.2, partial(_weights, look, clock)), (1.6, partial(_sums, look, clock))]
    if look.frame_gates:
        panels.append((1.3, partial(_frame_gates, look, clock)))
    tokens = len(look.tokens)
    panels += [(0.6 + 0.2 * tokens, partial(_map, look, clock, name)) for name in look.attention]
    panels += [(1.6, partial(_shares, look, clock, name)) for name in look.shares]
    if look.token_gates:
        panels.append((1.5, partial(_token_gates, look)))
    heights = [height for height, _ in panels]
    width = max(8.0, min(30.0, 1.2 * len(waveform) / 16000))
    with figure(Path(path), (width, sum(heights) + 0.5 * len(panels)), heights=heights) as axes:
        for each, (_, draw) in zip(axes, panels):
            draw(each)
        axes[0].set_title(title, loc="left")


def _over_time(axes: Any, seconds: float) -> None:
    axes.set_xlim(0, seconds)
    axes.set_xlabel("seconds")


def _speech(waveform: np.ndarray, look: Look, clock: Clock, axes: Any) -> None:
    draw_spectrogram(axes, waveform)
    _over_time(axes, clock.edges(look.frames)[1])
    if look.alpha is not None:
        _mark_fires(look, clock, axes, top=80)


def _mark_fires(look: Look, clock: Clock, axes: Any, top: float | None = None) -> None:
    """A line where each token is complete, and with `top` its name there."""
    for number, frame in enumerate(fires(look.alpha.numpy())):
        time = clock.times(look.frames)[frame]
        axes.axvline(time, color="#56B4E9", linewidth=1, linestyle="--")
        if top is not None and number < len(look.tokens):
            box = {"facecolor": "#000000", "alpha": 0.6, "linewidth": 0, "pad": 1}
            how = {"fontsize": 7, "ha": "right", "va": "top", "color": "#ffffff"}
            axes.text(time, top, look.tokens[number], bbox=box, **how)


def _weights(look: Look, clock: Clock, axes: Any) -> None:
    axes.plot(
        clock.times(look.frames), look.alpha.numpy(), color=COLOURS[0], drawstyle="steps-mid", label="alpha"
    )
    axes.set(ylabel="alpha", ylim=(0, None))
    axes.set_title("weights of integrate-and-fire, scaled to the number of tokens", loc="left")
    _over_time(axes, clock.edges(look.frames)[1])


def _sums(look: Look, clock: Clock, axes: Any) -> None:
    sums = np.cumsum(look.alpha.double().numpy())
    axes.plot(clock.times(look.frames), sums, color=COLOURS[1], label="sum of alpha")
    _mark_fires(look, clock, axes)
    whole = np.arange(1, len(look.tokens) + 1)
    axes.set_yticks(whole, look.tokens, fontsize=7)
    axes.set_ylim(0, max(1.0, len(look.tokens), *sums[-1:]) + 0.2)
    axes.set_title("sum of the weights: a token fires at every whole number", loc="left")
    _over_time(axes, clock.edges(look.frames)[1])


def _frame_gates(look: Look, clock: Clock, axes: Any) -> None:
    for number, (name, values) in enumerate(look.frame_gates.items()):
        axes.plot(clock.times(look.frames), values.numpy(), color=COLOURS[number], label=name)
    axes.set_title("gates of frames: how much of what BERT knows is let in", loc="left")
    axes.set(ylabel="mean gate", ylim=(0, 1))
    axes.legend(fontsize=8)
    _over_time(axes, clock.edges(look.frames)[1])


def _map(look: Look, clock: Clock, name: str, axes: Any) -> None:
    """Frames from left to right, tokens from top to bottom, dark where there is much attention."""
    tokens = len(look.tokens)
    extent = (*clock.edges(look.frames), tokens - 0.5, -0.5)
    weights = look.attention[name].numpy()
    axes.imshow(weights, aspect="auto", extent=extent, cmap="Blues", vmin=0, interpolation="nearest")
    axes.grid(visible=False)
    axes.set_yticks(range(tokens), look.tokens, fontsize=8)
    axes.set_title(READERS.get(name, name), loc="left")
    _over_time(axes, clock.edges(look.frames)[1])


def _shares(look: Look, clock: Clock, name: str, axes: Any) -> None:
    """A curve a token over the frames, with the token at its highest place."""
    times = clock.times(look.frames)
    for number, (token, values) in enumerate(zip(look.tokens, look.shares[name].numpy())):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(times, values, color=colour)
        top = values.argmax()
        axes.text(times[top], values[top], token, fontsize=7, ha="center", va="bottom", color=colour)
    axes.set_title(READERS.get(name, name), loc="left")
    axes.set(ylabel="weight", ylim=(0, None))
    axes.margins(y=0.2)
    _over_time(axes, clock.edges(look.frames)[1])


def _token_gates(look: Look, axes: Any) -> None:
    places: Sequence[int] = range(len(look.tokens))
    for number, (name, values) in enumerate(look.token_gates.items()):
        axes.plot(places, values.numpy(), MARKS[number], color=COLOURS[number], markersize=5, label=name)
    axes.set_xticks(places, look.tokens, fontsize=8, rotation=60 if len(look.tokens) > 12 else 0)
    axes.set_title("gates of tokens: how much of the speech is let in", loc="left")
    axes.set(ylabel="mean gate", ylim=(0, 1))
    axes.legend(fontsize=8)
