"""Layer-wise probing: how well a linear classifier tells phones, or any frame labels, from a block's output.

The classifier is linear discriminant analysis, whose weights have a closed form in sums over frames: all
blocks are trained in one pass over the data, nothing is drawn, and nothing but the sums is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speechkit.clustering.frames import refuse
from speechkit.clustering.labels import Track, read_track
from speechkit.clustering.quality import at_labels
from speechkit.data.audio import read_audio
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.decoding.encoder_features import FrozenEncoder
from speechkit.errors import BadSample, InputError

# Seconds by which labels may be longer or shorter than the audio, as for training.
MAX_DIFFERENCE = 0.5


class Discriminant:
    """Linear discriminant analysis over frames as they come.

    Source: Hastie, Tibshirani & Friedman, "The Elements of Statistical Learning", 2009, Eq. 4.10: with class
    means mu_c, shares pi_c and the common covariance S, the class is the one with the highest
    `x' S^-1 mu_c - mu_c' S^-1 mu_c / 2 + log pi_c`.

    Args:
        dim: D.
        classes: C.
    """

    def __init__(self, dim: int, classes: int) -> None:
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self.sums = torch.zeros(classes, dim, dtype=torch.float64)
        self.products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, frames: Tensor, classes: Tensor) -> None:
        """Takes in `(N, D)` frames and their `(N,)` classes."""
        frames = frames.double()
        self.counts += torch.bincount(classes, minlength=len(self.counts))
        self.sums.index_add_(0, classes, frames)
        self.products += frames.T @ frames

    def solve(self, shrinkage: float = 1e-3) -> tuple[Tensor, Tensor]:
        """Weights `(D, C)` and biases `(C,)` of the classifier; classes without a frame are never chosen.

        Args:
            shrinkage: share of the mean variance in the covariance, which makes it well conditioned.
        """
        total, dim = self.counts.sum(), len(self.products)
        means = self.sums / self.counts.clamp(min=1)[:, None]
        within = (self.products - means.T @ self.sums) / total
        variance = within.diagonal().mean().clamp(min=1e-12)
        within = (1 - shrinkage) * within + shrinkage * variance * torch.eye(dim, dtype=torch.float64)
        weights = torch.linalg.solve(within, means.T)
        return weights, (self.counts / total).log() - (means.T * weights).sum(0) / 2


@dataclass(frozen=True)
class Probed:
    """What a probe of one block found on the test set.

    Attributes:
        layer: the block; 0 is the first block's input.
        accuracy: share of test frames that are right.
    """

    layer: int
    accuracy: float


@dataclass(frozen=True)
class Report:
    """All blocks.

    Attributes:
        layers: one entry a block.
        classes: different labels in training.
        chance: share of the most frequent training label among test frames.
        train_frames: frames trained on.
        test_frames: frames tested on.
        unknown: test frames whose label training never saw; they count as wrong.
    """

    layers: list[Probed]
    classes: int
    chance: float
    train_frames: int
    test_frames: int
    unknown: int


class Labelled:
    """A data directory with a label track: the states of all blocks, with a label for each frame.

    Args:
        encoder: the frozen encoder.
        folder: the data directory.
        labels: name of its file of labels, such as phones.txt or km.txt.
        rate: labels a second; None takes what is recorded beside the file.
        max_seconds: utterances are taken, evenly spread over the set, until there is so much audio.

    Raises:
        InputError: no such file, or labels of other utterances or another length than the audio.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        folder: str | Path,
        labels: str,
        rate: float | None,
        max_seconds: float = float("inf"),
    ) -> None:
        self.encoder, self.data = encoder, read_data_dir(folder)
        self.track: Track = read_track(Path(folder) / labels, rate)
        counts = self.data.tables.get("utt2num_samples")
        if counts is None or self.data.segments or not self.data.utterances:
            raise InputError(f"{folder}: empty or not made by speechkit format; run that first")
        seconds = {name: int(counts[name]) / encoder.rate for name in self.data.utterances}
        self._check(seconds)
        share = min(1.0, max_seconds / sum(seconds.values()))
        count = max(1, round(share * len(seconds)))
        spread = np.linspace(0, len(seconds), count, endpoint=False).astype(int)
        self.utterances = [self.data.utterances[place] for place in spread]

    def _check(self, seconds: dict[str, float]) -> None:
        path, rows, rate = self.track.path, self.track.rows, self.track.rate
        missing = sorted(seconds.keys() - rows.keys())
        if missing:
            raise InputError(f"{path}: no row for {len(missing)} utterance(s), the first is {missing[0]}")
        for name, duration in seconds.items():
            if abs(len(rows[name]) / rate - duration) > MAX_DIFFERENCE:
                raise InputError(
                    f"{path}: utterance {name}: {len(rows[name])} labels at {rate:g} a second for "
                    f"{duration:.2f} s of audio; is the label rate right?"
                )

    def __iter__(self) -> Iterator[tuple[list[Tensor], np.ndarray]]:
        """For each utterance the `(T, D)` states of all blocks and `(T,)` labels."""
        encoder, problems = self.encoder, []
        rate = encoder.rate / encoder.shift
        for name in self.utterances:
            try:
                waveform = read_audio(self.data.wav[name], rate=encoder.rate, fixed_rate=True, utterance=name)
            except BadSample as error:
                problems.append(error)
                continue
            values = np.array(self.track.rows[name])
            frames = encoder.frames(len(waveform))
            labels = at_labels(values, self.track.rate, frames, rate, encoder.middle / encoder.rate)
            if len(labels):
                states = encoder([encoder.inputs(waveform)]).hidden_states
                yield [state[0, : len(labels)].cpu() for state in states], labels
        refuse(str(self.data.path), problems)


def probe(train: Labelled, test: Labelled, layers: Sequence[int]) -> Report:
    """Trains a classifier for each block on one data set and tests it on another.

    Args:
        train: labelled frames.
        test: labelled frames of other speakers, if the numbers are to mean anything.
        layers: blocks; 0 is the first block's input.

    Raises:
        InputError: fewer than two different labels.
    """
    names = sorted({label for name in train.utterances for label in train.track.rows[name]})
    if len(names) < 2:
        raise InputError(
            f"{train.track.path}: {len(names)} different label(s); there is nothing to tell apart"
        )
    places = {name: place for place, name in enumerate(names)}
    statistics = [Discriminant(train.encoder.dims[layer], len(names)) for layer in layers]
    for states, labels in train:
        classes = torch.tensor([places[label] for label in labels.tolist()])
        for layer, sums in zip(layers, statistics):
            sums.add(states[layer], classes)
    counts = statistics[0].counts
    seen = counts > 0
    if not seen.any():
        raise InputError(f"{train.data.path}: not one labelled frame; the audio is too short")
    solved = [sums.solve() for sums in statistics]
    right, total, unknown, common = _score(test, layers, solved, places, seen, int(counts.argmax()))
    if not total:
        raise InputError(f"{test.data.path}: not one labelled frame; the audio is too short")
    found = [Probed(layer, int(count) / total) for layer, count in zip(layers, right)]
    return Report(found, int(seen.sum()), common / total, int(counts.sum()), total, unknown)


def _score(
    data: Labelled,
    layers: Sequence[int],
    solved: Sequence[tuple[Tensor, Tensor]],
    places: dict[str, int],
    seen: Tensor,
    frequent: int,
) -> tuple[np.ndarray, int, int, int]:
    """Right frames of each block, frames, those of unknown labels, and those of the most frequent label."""
    right, total, unknown, common = np.zeros(len(layers), np.int64), 0, 0, 0
    for states, labels in data:
        classes = torch.tensor([places.get(label, -1) for label in labels.tolist()])
        for index, (layer, (weights, biases)) in enumerate(zip(layers, solved)):
            best = (states[layer].double() @ weights + biases).argmax(1)
            right[index] += int((best == classes).sum())
        total += len(classes)
        unknown += int(((classes < 0) | ~seen[classes.clamp(min=0)]).sum())
        common += int((classes == frequent).sum())
    return right, total, unknown, common
