"""k-means over frames: k-means++ and Lloyd's algorithm on growing samples, and assignment to centres.

Everything is matrix products in blocks of fp32 frames, on a CPU or a GPU. Scores leave out `||x||^2`, which
is the same for all centres, and a mean is taken from both sides, so that large offsets (C0 of an MFCC) cost
no digits. Equal scores go to the lowest index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.errors import InputError

# Frames scored at once: with 100 centres the scores are 0.8 MB and stay in the cache.
BLOCK = 2048
# Frames for each cluster in the sample on which restarts are compared.
SAMPLE = 128
GROWTH = 4


@dataclass
class Config:
    """Training of the centres."""

    clusters: int = 100
    """K"""
    restarts: int = 20
    """Initialisations by k-means++; the best one on a small sample is trained further."""
    iterations: int = 100
    """At most so many steps over all frames."""
    tolerance: float = 1e-4
    """Stop when a step lowers the inertia by less than this share."""
    seed: int = 0
    """Of samples and initialisations."""

    def __post_init__(self) -> None:
        for name in ("clusters", "restarts", "iterations"):
            check_range(name, getattr(self, name), 1)
        check_range("tolerance", self.tolerance, 0, 1)
        check_range("seed", self.seed, 0, 2**31 - 1)


@dataclass(frozen=True)
class Fit:
    """Trained centres.

    Attributes:
        centres: `(K, F)` fp32, on the CPU.
        inertia: mean squared distance of a frame to its centre, of the frames trained on.
        history: the inertia before each step over all frames, and after the last.
        empty: clusters that own no frame.
    """

    centres: Tensor
    inertia: float
    history: list[float]
    empty: int


class _Scorer:
    """Centres ready for `(N, F)` frames: a frame's nearest centre has the highest `x.c - ||c||^2 / 2`."""

    def __init__(self, centres: Tensor) -> None:
        self.weight = centres.T.contiguous()
        self.bias = centres.double().square().sum(dim=1).div(-2).to(centres.dtype)

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """`(N,)` nearest centres, int64, and the scores of all, `(N, K)`."""
        scores = torch.addmm(self.bias, frames, self.weight)
        if scores.device.type == "cpu":  # numpy's is five times faster
            return torch.from_numpy(scores.numpy().argmax(axis=1)), scores
        return scores.argmax(dim=1), scores


def assign(frames: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The cluster of every frame.

    Args:
        frames: `(N, F)`.
        centres: `(K, F)` on the same device.

    Returns:
        `(N,)` int64 clusters, and `(N,)` squared distances to their centres.
    """
    mean = centres.double().mean(dim=0)
    scorer, mean = _Scorer((centres - mean).to(centres.dtype)), mean.to(centres.dtype)
    labels = torch.empty(len(frames), dtype=torch.int64, device=frames.device)
    distances = torch.empty(len(frames), dtype=centres.dtype, device=frames.device)
    for start, block in _blocks(frames):
        here = slice(start, start + len(block))
        centred = block - mean
        labels[here], scores = scorer(centred)
        distances[here] = _distances(centred, scores, labels[here])
    return labels, distances


def _distances(frames: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    best = scores.gather(1, labels[:, None]).squeeze(1)
    return (frames.square().sum(dim=1) - 2 * best).clamp_(min=0)


def _blocks(frames: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Pieces of the frames, each with the place of its first."""
    size = BLOCK if frames.device.type == "cpu" else 64 * BLOCK
    return ((start, frames[start : start + size]) for start in range(0, len(frames), size))


def lloyd_step(frames: Tensor, centres: Tensor, power: float | None = None) -> tuple[Tensor, float, int]:
    """One step of Lloyd's algorithm: assign every frame, move every centre to the mean of its frames.

    A cluster without frames takes the frame that is farthest from its own centre, the next such cluster the
    next one.

    Args:
        frames: `(N, F)`, best with a mean of about 0.
        centres: `(K, F)`.
        power: sum of all `||x||^2`, where it is known.

    Returns:
        The new centres, the inertia of the frames with the *old* ones, and how many clusters were empty.
    """
    scorer = _Scorer(centres)
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=frames.device)
    counts = torch.zeros(len(centres), dtype=torch.int64, device=frames.device)
    best = torch.zeros((), dtype=torch.float64, device=frames.device)
    for _, block in _blocks(frames):
        labels, scores = scorer(block)
        sums += cluster_sums(block, labels, len(centres))
        counts += torch.bincount(labels, minlength=len(centres))
        best += scores.gather(1, labels[:, None]).sum(dtype=torch.float64)
    inertia = ((_power(frames) if power is None else power) - 2 * float(best)) / len(frames)
    moved = (sums / counts.clamp(min=1)[:, None]).to(centres.dtype)
    empty = (counts == 0).nonzero().squeeze(1)
    if len(empty):
        farthest = assign(frames, centres)[1].topk(min(len(empty), len(frames))).indices
        moved[empty[: len(farthest)]] = frames.index_select(0, farthest)
    return moved, max(inertia, 0.0), len(empty)


def cluster_sums(frames: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """`(K, F)` sum of the frames of each cluster."""
    if frames.device.type == "cpu":
        return frames.new_zeros(clusters, frames.shape[1]).index_add_(0, labels, frames)
    owners = frames.new_zeros(clusters, len(frames)).scatter_(0, labels[None], 1.0)
    return owners @ frames  # index_add_ would differ from run to run there


def _power(frames: Tensor) -> float:
    return sum(float(block.square().sum(dtype=torch.float64)) for _, block in _blocks(frames))


def lloyd(
    frames: Tensor, centres: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, list[float], int]:
    """Steps until the inertia falls by less than a share of itself.

    Args:
        frames: `(N, F)`.
        centres: `(K, F)` to start from.
        iterations: at most so many steps.
        tolerance: the share.

    Returns:
        The centres, the inertia before each step and with the centres returned, and the empty clusters left.
    """
    history: list[float] = []
    power = _power(frames)
    while True:
        moved, inertia, empty = lloyd_step(frames, centres, power)
        history.append(inertia)
        settled = len(history) > 1 and history[-2] - inertia <= tolerance * history[-2]
        if settled or len(history) > iterations:
            return centres, history, empty
        centres = moved


def plus_plus(frames: Tensor, clusters: int, random: torch.Generator) -> Tensor:
    """Initial centres by greedy k-means++.

    Source: Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", 2007, section 2.2: the
    next centre is drawn with probability proportional to its squared distance to those there are; as in the
    authors' implementation the best of `2 + log K` draws is taken.

    Args:
        frames: `(N, F)`, N >= clusters, best with a mean of about 0.
        clusters: K.
        random: a CPU generator.

    Returns:
        `(K,)` the frames chosen, int64 on the CPU; their values differ as long as there are enough that do.
    """
    norms = frames.square().sum(dim=1)
    trials = 2 + int(math.log(clusters))
    chosen = [int(torch.randint(len(frames), (), generator=random))]
    closest = (norms + norms[chosen[0]] - 2 * frames @ frames[chosen[0]]).clamp_(min=0)
    closest[chosen[0]] = 0
    while len(chosen) < clusters:
        mass = closest.double().cumsum(0)
        draws = torch.rand(trials, generator=random, dtype=torch.float64).to(frames.device) * mass[-1]
        tried = torch.searchsorted(mass, draws, right=True).clamp_(max=len(frames) - 1)
        products = frames.index_select(0, tried) @ frames.T
        distance = (norms + norms.index_select(0, tried)[:, None] - 2 * products).clamp_(min=0)
        distance[torch.arange(trials), tried] = 0
        distance = torch.minimum(distance, closest)
        best = int(distance.sum(dim=1, dtype=torch.float64).argmin())
        closest = distance[best]
        chosen.append(int(tried[best]))
    return torch.tensor(chosen)


def fit(frames: Tensor, config: Config) -> Fit:
    """Trains centres.

    The restarts run to their end on a small random sample; the best goes on over samples four times larger
    each, the last being all frames. Deterministic for a seed and one thread.

    Args:
        frames: `(N, F)` fp32 on the device that computes; their mean is taken from them *in place*, because a
            copy may not fit the memory.
        config: how.

    Raises:
        InputError: fewer frames than clusters, or frames that are not finite.
    """
    count, clusters = len(frames), config.clusters
    if count < clusters:
        raise InputError(
            f"{count} frames are too few for {clusters} clusters; give more data or lower --clusters"
        )
    mean = sum(block.sum(dim=0, dtype=torch.float64) for _, block in _blocks(frames)) / count
    if not bool(mean.isfinite().all()):
        raise InputError("frames are not finite: NaN or infinity; make the features again")
    frames -= mean
    random = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(count, generator=random).to(frames.device)
    size = min(count, SAMPLE * clusters)
    sample = frames.index_select(0, order[:size])
    limits = (config.iterations, config.tolerance)
    best: tuple[float, Tensor] | None = None
    for _ in range(config.restarts):
        start = sample.index_select(0, plus_plus(sample, clusters, random).to(frames.device))
        centres, history, _ = lloyd(sample, start, *limits)
        if best is None or history[-1] < best[0]:
            best = history[-1], centres
    centres = best[1]
    while (size := size * GROWTH) < count:
        centres = lloyd(frames.index_select(0, order[:size]), centres, *limits)[0]
    centres, history, empty = lloyd(frames, centres, *limits)
    return Fit((centres + mean).to(frames.dtype).cpu(), history[-1], history, empty)
