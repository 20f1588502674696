"""Pictures of single utterances: what is masked in them, and which labels their frames have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.clustering.labels import Track
from speechkit.data.audio import read_audio
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.errors import InputError, nearest
from speechkit.frontends import fbank
from speechkit.metrics.plots import figure

HOP = 0.01  # seconds between the frames of the spectrogram
PALETTE = "nipy_spectral"


def read_utterance(folder: str | Path, utterance: str | None = None) -> tuple[str, np.ndarray]:
    """The waveform of an utterance of a formatted data directory; the first one when none is named.

    Raises:
        InputError: no such directory or utterance, or audio that cannot be read.
    """
    data = read_data_dir(folder)
    if not data.wav or data.segments:
        raise InputError(
            f"{folder}: no audio of single utterances; give a directory made by speechkit format"
        )
    name = utterance or data.utterances[0]
    if name not in data.utt2spk:
        raise InputError(f"{folder}: no utterance '{name}'{nearest(name, data.utterances[:5000])}")
    return name, read_audio(data.wav[name], rate=16000, utterance=name)


def draw_spectrogram(axes: Any, waveform: np.ndarray) -> None:
    """Draws the log-mel energies of `(S,)` samples at 16 kHz over seconds; InputError for too few samples."""
    features = fbank.build(fbank.Config())(waveform)
    if not len(features):
        raise InputError(f"{len(waveform)} samples are too few for a spectrogram")
    extent = (0, len(features) * HOP, 0, features.shape[1])
    low, high = np.percentile(features, [5, 99.5])
    axes.imshow(
        features.T,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1),
    )
    axes.grid(visible=False)
    axes.set_ylabel("mel band")


def draw_mask(
    waveform: np.ndarray, mask: np.ndarray, rate: float, offset: float, title: str, path: str | Path
) -> None:
    """Draws the frames that masked prediction hides, over the spectrogram.

    Args:
        waveform: `(S,)` at 16 kHz.
        mask: `(T,)` bool, True at hidden frames.
        rate: frames a second.
        offset: seconds to the middle of the first frame.
        title: of the picture.
        path: the PNG.
    """
    with figure(Path(path), (10, 3)) as (axes,):
        draw_spectrogram(axes, waveform)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
        for start, end in zip(edges[::2], edges[1::2]):
            times = [offset + (place - 0.5) / rate for place in (start, end)]
            axes.axvspan(*times, facecolor="#ffffff", edgecolor="#56B4E9", alpha=0.75, linewidth=1)
        axes.set_xlabel("seconds")
        share = 100 * mask.mean() if len(mask) else 0.0
        axes.set_title(f"{title}: {share:.0f} % of {len(mask)} frames masked", loc="left")


def draw_label_strips(
    tracks: Sequence[Track], folder: str | Path, utterance: str | None, path: str | Path
) -> None:
    """Draws label sets under the spectrogram of an utterance: equal labels have equal colours.

    Args:
        tracks: labels and phones of the data directory.
        folder: the data directory, for the audio.
        utterance: which one; None is the first.
        path: the PNG.

    Raises:
        InputError: no such utterance, or one without labels.
    """
    name, waveform = read_utterance(folder, utterance)
    for track in tracks:
        if not track.rows.get(name):
            raise InputError(f"{track.path}: no labels for utterance {name}")
    size = (max(8.0, min(30.0, 1.2 * len(waveform) / 16000)), 2.6 + 0.5 * len(tracks))
    with figure(Path(path), size) as (axes,):
        draw_spectrogram(axes, waveform)
        height = 80 * 0.5 / 2.6
        for index, track in enumerate(tracks):
            _strip(axes, track, name, -height * (index + 1), height * 0.85)
        axes.set_ylim(-height * len(tracks), 80)
        axes.set_xlim(0, len(waveform) / 16000)
        middles = [-height * (index + 1) + height * 0.42 for index in range(len(tracks))]
        axes.set_yticks([*middles, 40], [*(track.path.stem for track in tracks), "mel bands"])
        axes.set_ylabel("")
        axes.set_xlabel("seconds")
        axes.set_title(name, loc="left")


def _strip(axes, track: Track, name: str, bottom: float, height: float) -> None:
    """Coloured pieces, one for each run of equal labels, named where there is room."""
    from matplotlib import colormaps

    row = track.rows[name]
    known = sorted({label for labels in track.rows.values() for label in labels})
    shades = {label: colormaps[PALETTE]((place + 0.5) / len(known)) for place, label in enumerate(known)}
    bounds = [0, *(place for place in range(1, len(row)) if row[place] != row[place - 1]), len(row)]
    for start, end in zip(bounds, bounds[1:]):
        left, right = (track.offset + (place - 0.5) / track.rate for place in (start, end))
        colour = shades[row[start]]
        axes.bar(left, height, right - left, bottom, align="edge", color=colour, linewidth=0)
        if right - left >= 0.01 + 0.05 * len(row[start]):
            dark = np.dot(colour[:3], (0.3, 0.6, 0.1)) < 0.5
            axes.text(
                (left + right) / 2,
                bottom + height / 2,
                row[start],
                ha="center",
                va="center",
                fontsize=7,
                color="#ffffff" if dark else "#000000",
            )
