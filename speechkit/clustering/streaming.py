"""k-means over more frames than the memory holds: Lloyd's algorithm on chunks that are read again and again.

The chunks are a sample of the data that is drawn once. Steps over the first sixteenth of them come first,
then over a quarter, then over all. What a step has found so far is saved now and then, and the same command
again goes on from there, to the same bits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from speechkit.clustering.kmeans import GROWTH, Config, Fit, assign, cluster_sums, plus_plus
from speechkit.errors import InputError
from speechkit.files import atomic_folder, hash_json, read_json, write_json
from speechkit.stamp import fingerprint

# Frames for each cluster from which the first centres are chosen.
SEEDS = 3
# Frames remembered in each step as new places for clusters that own none.
FAR = 256
SAVE_SECONDS = 120.0


@dataclass
class _State:
    """How far the training is.

    Attributes:
        centres: `(K, F)` of this step.
        sums: `(K, F)` float64 of the frames of each cluster, in this step so far.
        counts: `(K,)` of them.
        far: `(M, F)` frames farthest from their centres.
        distances: `(M,)` squared distances of those.
        stage: 0, 1, 2: how many chunks a step is over.
        chunk: those done in this step.
        frames: those seen in it.
        inertia: sum of squared distances in it.
        history: mean squared distance of each finished step of this stage.
    """

    centres: Tensor
    sums: Tensor
    counts: Tensor
    far: Tensor
    distances: Tensor
    stage: int = 0
    chunk: int = 0
    frames: int = 0
    inertia: float = 0.0
    history: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, centres: Tensor, stage: int = 0, history: Sequence[float] = ()) -> _State:
        """The beginning of a step."""
        zeros = centres.new_zeros(centres.shape, dtype=torch.float64)
        counts = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
        return cls(centres, zeros, counts, centres[:0], centres.new_zeros(0), stage, history=list(history))

    def add(self, frames: Tensor) -> None:
        """Takes in a chunk: one matrix product with all centres, in blocks."""
        labels, distances = assign(frames, self.centres)
        self.sums += cluster_sums(frames, labels, len(self.centres))
        self.counts += torch.bincount(labels, minlength=len(self.centres))
        self.inertia += float(distances.double().sum())
        self.frames, self.chunk = self.frames + len(frames), self.chunk + 1
        self.far = torch.cat([self.far, frames])
        self.distances = torch.cat([self.distances, distances])
        best = self.distances.topk(min(FAR, len(self.distances))).indices
        self.far, self.distances = self.far.index_select(0, best), self.distances.index_select(0, best)

    def moved(self) -> Tensor:
        """The centres of the next step; clusters without frames take those farthest from theirs."""
        moved = (self.sums / self.counts.clamp(min=1)[:, None]).to(self.centres.dtype)
        empty = (self.counts == 0).nonzero().squeeze(1)[: len(self.far)]
        moved[empty] = self.far[: len(empty)]
        return moved


class Keeper:
    """Where a training that was stopped goes on.

    Args:
        folder: for the state; taken away when the training is over.
        key: hash of all that the training depends on; a state of another one is not used.
        seconds: between two savings.
    """

    TENSORS = ("centres", "sums", "counts", "far", "distances")

    def __init__(self, folder: Path, key: str, seconds: float = SAVE_SECONDS) -> None:
        self.folder, self.key, self.seconds, self.saved = folder, key, seconds, time.monotonic()

    def save(self, state: _State, always: bool = False) -> None:
        """Writes the state, when it is time to."""
        if not always and time.monotonic() - self.saved < self.seconds:
            return
        from safetensors.torch import save_file

        with atomic_folder(self.folder) as folder:
            tensors = {name: getattr(state, name).cpu().contiguous() for name in self.TENSORS}
            save_file(tensors, folder / "state.safetensors")
            rest = {name: value for name, value in vars(state).items() if name not in self.TENSORS}
            write_json(folder / "state.json", {"key": self.key, **rest})
        self.saved = time.monotonic()

    def load(self, device: torch.device) -> _State | None:
        """The state of this training, or None."""
        from safetensors.torch import load_file

        path = self.folder / "state.json"
        record = read_json(path) if path.is_file() else {}
        if record.pop("key", None) != self.key:
            return None
        tensors = load_file(self.folder / "state.safetensors", device=str(device))
        return _State(**tensors, **record)

    def clear(self) -> None:
        """Takes the state away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fit_chunks(
    read: Callable[[int, int], Iterator[Tensor]],
    chunks: int,
    config: Config,
    keeper: Keeper,
    device: torch.device | str = "cpu",
) -> Fit:
    """Trains centres on chunks that are read as often as needed.

    Args:
        read: chunks start to end, `(N, F)` fp32 each, always the same.
        chunks: how many there are.
        config: clusters, iterations (steps over all chunks at most, and over each smaller sample), tolerance
            and seed; there is one initialisation, by k-means++ on the first chunks.
        keeper: of the state.
        device: where to compute.

    Raises:
        InputError: fewer frames than clusters, or frames that are not finite.
    """
    device = torch.device(device)
    sizes = sorted({-(-chunks // GROWTH**2), -(-chunks // GROWTH), chunks})
    state = keeper.load(device) or _State.of(_first_centres(read, chunks, config).to(device))
    while True:
        for frames in read(state.chunk, sizes[state.stage]):
            state.add(frames.to(device))
            keeper.save(state)
        history, empty = [*state.history, state.inertia / state.frames], int((state.counts == 0).sum())
        settled = len(history) > 1 and history[-2] - history[-1] <= config.tolerance * history[-2]
        if settled or len(history) > config.iterations:
            if state.stage + 1 == len(sizes):
                keeper.clear()
                return Fit(state.centres.cpu(), history[-1], history, empty)
            state = _State.of(state.centres, state.stage + 1)
        else:
            state = _State.of(state.moved(), state.stage, history)
        keeper.save(state)


def _first_centres(read: Callable[[int, int], Iterator[Tensor]], chunks: int, config: Config) -> Tensor:
    parts: list[Tensor] = []
    for frames in read(0, chunks):
        parts.append(frames)
        if sum(map(len, parts)) >= SEEDS * config.clusters:
            break
    frames = torch.cat(parts)[: max(SEEDS * config.clusters, len(parts[0]))]
    if len(frames) < config.clusters:
        raise InputError(
            f"{len(frames)} frames are too few for {config.clusters} clusters; give more data or lower "
            "--clusters"
        )
    if not bool(torch.isfinite(frames).all()):
        raise InputError("frames are not finite: NaN or infinity; make the features again")
    random = torch.Generator().manual_seed(config.seed)
    chosen = plus_plus(frames - frames.mean(0), config.clusters, random)
    return frames.index_select(0, chosen)


def training_key(options: object, inputs: Sequence[Path]) -> str:
    """Hash of what a training depends on."""
    return hash_json([options, {str(path): fingerprint(path) for path in inputs}])
