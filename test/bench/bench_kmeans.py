"""k-means on a million 39-dim frames: SpeechKit, scikit-learn's MiniBatchKMeans and faiss in one run.

    python test/bench/bench_kmeans.py [--frames 1000000] [--clusters 100] [--data DIR] [--peers DIR]

Frames are MFCCs with derivatives of a data directory made by `speechkit format`, repeated with a little noise
when it is short of them, or without one of a mixture of 400 Gaussians with the spread of MFCCs. All get one
thread. Times are CPU seconds and wall seconds; the inertia of all is measured by the same code on the same
frames. scikit-learn and faiss are no dependencies: `pip install --no-deps --target DIR scikit-learn joblib
threadpoolctl narwhals cloudpickle faiss-cpu` and --peers DIR.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from speechkit.clustering.kmeans import Config, assign, fit


def mixture(count: int, dim: int = 39) -> np.ndarray:
    """Frames with the spread of MFCCs: wide first coefficients, narrow derivatives, an offset on C0."""
    random = np.random.default_rng(0)
    means = random.standard_normal((400, dim)) * np.linspace(12, 0.5, dim)
    spread = random.standard_normal((count, dim)) * np.linspace(6, 0.5, dim)
    frames = (means[random.integers(0, 400, count)] + spread).astype(np.float32)
    frames[:, 0] += 60
    return frames


def of_speech(folder: Path, count: int) -> np.ndarray:
    """MFCCs with derivatives of a data directory, repeated with noise of a twentieth of their deviation."""
    from speechkit.clustering.frames import Kind, open_source, sample_frames
    from speechkit.frontends import mfcc

    frames, _ = sample_frames([open_source(folder, Kind.of(mfcc.Config(use_energy=False, deltas=2)))], count)
    print(f"{len(frames)} frames of {folder}")
    repeated = np.tile(frames, (-(-count // len(frames)), 1))[:count]
    noise = np.random.default_rng(0).standard_normal(repeated.shape).astype(np.float32)
    noise[: len(frames)] = 0
    return repeated + 0.05 * frames.std(axis=0) * noise


def speechkit_centres(frames: np.ndarray, clusters: int, restarts: int) -> np.ndarray:
    return fit(torch.from_numpy(frames.copy()), Config(clusters=clusters, restarts=restarts)).centres.numpy()


def sklearn_centres(frames: np.ndarray, clusters: int, **options) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(clusters, random_state=0, init="k-means++", **options)
    return model.fit(frames).cluster_centers_.astype(np.float32)


def faiss_centres(frames: np.ndarray, clusters: int, steps: int) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(1)
    model = faiss.Kmeans(frames.shape[1], clusters, niter=steps, seed=0, max_points_per_centroid=1 << 30)
    model.train(frames)
    return model.centroids


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peers", help="folder with scikit-learn and faiss")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path += [args.peers] if args.peers else []
    frames = of_speech(args.data, args.frames) if args.data else mixture(args.frames)
    published = {"batch_size": 10000, "n_init": 20, "max_no_improvement": 100, "reassignment_ratio": 0.0}
    runs: dict[str, Callable[[], np.ndarray]] = {
        "speechkit, 20 restarts": lambda: speechkit_centres(frames, args.clusters, 20),
        "speechkit, 1 restart": lambda: speechkit_centres(frames, args.clusters, 1),
        "scikit-learn, HuBERT's options": lambda: sklearn_centres(frames, args.clusters, **published),
        "scikit-learn, its defaults": lambda: sklearn_centres(frames, args.clusters),
        "faiss, 25 steps": lambda: faiss_centres(frames, args.clusters, 25),
    }
    print(f"{len(frames)} x {frames.shape[1]}, {args.clusters} clusters, one thread")
    print(f"{'':32} {'CPU s':>8} {'wall s':>8} {'inertia':>12} {'x slower':>9}")
    base = None
    for name, run in runs.items():
        started, used = time.perf_counter(), time.process_time()
        try:
            centres = run()
        except ImportError as error:
            print(f"{name:32} not measured: {error}")
            continue
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        base = base or cpu
        distances = assign(torch.from_numpy(frames), torch.from_numpy(centres))[1]
        inertia = float(distances.double().mean())
        print(f"{name:32} {cpu:8.2f} {wall:8.2f} {inertia:12.4f} {cpu / base:9.2f}", flush=True)


if __name__ == "__main__":
    main()
