"""Pictures of AV-BERT: clips as their clusters show them, and which of its tokens a recogniser reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.metrics.plots import figure
from speechkit.metrics.plots_frames import draw_spectrogram

SLICES = 6
"""Slices of time of a clip that are shown, at most."""

GREY = 0.5
"""Of patches that nobody sees."""


def mosaic(clusters: np.ndarray, centres: np.ndarray, hidden: np.ndarray | None = None) -> np.ndarray:
    """Images that are put together from the centres of clusters.

    Args:
        clusters: `(T, R, C)` cluster of each patch, by slice of time, row and column.
        centres: `(K, p, p, 3)` the picture of each cluster, in [0, 1].
        hidden: `(T, R, C)` bool, patches that stay grey; None for none.

    Returns:
        `(T, R p, C p, 3)`.
    """
    slices, rows, columns = clusters.shape
    size = centres.shape[1]
    patches = centres[clusters]
    if hidden is not None:
        patches = np.where(hidden[..., None, None, None], GREY, patches)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(slices, rows * size, columns * size, 3)


def draw_mosaics(pictures: Mapping[str, np.ndarray], title: str, path: str | Path) -> None:
    """Draws rows of images over time.

    Args:
        pictures: name of each row -> `(T, H, W, 3)` in [0, 1], the same number of slices in each.
        title: of the picture.
        path: the PNG.
    """
    total = len(next(iter(pictures.values())))
    shown = np.unique(np.linspace(0, total - 1, min(SLICES, total)).round().astype(int))
    size = (1.7 * len(shown) + 0.6, 1.9 * len(pictures) + 0.4)
    with figure(Path(path), size, len(shown), [1.0] * len(pictures)) as axes:
        for row, (name, images) in enumerate(pictures.items()):
            for column, number in enumerate(shown):
                each = axes[row * len(shown) + column]
                each.imshow(images[number].clip(0, 1), interpolation="nearest")
                each.set(xticks=[], yticks=[])
                each.grid(visible=False)
                if column == 0:
                    each.set_ylabel(name, fontsize=8)
                if row == 0:
                    each.set_title(f"slice {number}" if column else f"{title}, slice {number}", fontsize=8)


def draw_context(
    waveform: np.ndarray,
    maps: Mapping[str, np.ndarray],
    rate: float,
    token_seconds: float,
    title: str,
    path: str | Path,
) -> None:
    """Draws, under a spectrogram, which of AV-BERT's tokens the frames of a recogniser read.

    Args:
        waveform: `(S,)` at 16 kHz.
        maps: name of a block -> `(T, M)` weights; those of a frame sum to 1.
        rate: frames a second.
        token_seconds: of a token.
        title: of the picture.
        path: the PNG.
    """
    seconds = len(waveform) / 16000
    width = max(8.0, min(30.0, 1.2 * seconds))
    heights = [1.6, *[2.2] * len(maps)]
    with figure(Path(path), (width, sum(heights) + 0.5 * len(heights)), heights=heights) as axes:
        draw_spectrogram(axes[0], waveform)
        axes[0].set_title(title, loc="left")
        for each, (name, weights) in zip(axes[1:], maps.items()):
            _draw_map(each, weights, rate, token_seconds)
            each.set_title(f"{name}: what each frame reads, mean over heads", loc="left")
        for each in axes:
            each.set_xlim(0, seconds)
        axes[-1].set_xlabel("seconds of speech")


def _draw_map(axes: Any, weights: np.ndarray, rate: float, token_seconds: float) -> None:
    """Frames from left to right, tokens from bottom to top, dark where there is much attention."""
    extent = (0, weights.shape[0] / rate, 0, weights.shape[1] * token_seconds)
    image = np.asarray(weights).T
    axes.imshow(
        image, origin="lower", aspect="auto", extent=extent, cmap="Blues", vmin=0, interpolation="nearest"
    )
    axes.grid(visible=False)
    axes.set_ylabel("seconds of tokens")
