"""Decoding and patching of clips against real time, and the memory of labelling their patches.

    python test/bench/bench_video.py [--clips DIR] [--seconds 10] [--clusters 8192]

Clips of 25 pictures a second are made here (MPEG-1, MPEG-4 and H.264 with B-pictures and sound), or are all
*.mpg and *.mp4 below --clips. One thread does everything: frames at 6 a second of 256 x 256, scaled and cut
into tokens of 3 x 16 x 16. Given are seconds of video for a second of CPU: of the frames alone, with the
tokens, and of `speechkit video --audio true`, which decodes the sound and writes everything too. Before
that the tokens of a clip of 10 s are given to the nearest of random centres; told are CPU seconds and the
most memory that this took.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from clips import clip_dir, make_clip, noise  # noqa: E402

from speechkit.clustering.kmeans import assign  # noqa: E402
from speechkit.data.video import read_clip  # noqa: E402
from speechkit.data.video_dump import dump_video  # noqa: E402
from speechkit.data.video_shards import Options  # noqa: E402
from speechkit.frontends import video_patches  # noqa: E402
from speechkit.frontends.patches import FrameConfig  # noqa: E402

KINDS = {
    "MPEG-1 360 x 288": (
        "mpg",
        (288, 360),
        {"codec": "mpeg1video", "sound_codec": "mp2", "sound_rate": 44100},
    ),
    "MPEG-4 340 x 256": ("mp4", (256, 340), {"codec": "mpeg4", "sound_codec": "aac"}),
    "H.264 340 x 256": ("mp4", (256, 340), {"codec": "libx264", "sound_codec": "aac"}),
    "H.264 640 x 360": ("mp4", (360, 640), {"codec": "libx264", "sound_codec": "aac"}),
    "H.264 1280 x 720": ("mp4", (720, 1280), {"codec": "libx264", "sound_codec": "aac"}),
}


def moving(number: int, height: int, width: int) -> np.ndarray:
    """A picture of blocks that drift, so that the pictures between depend on their neighbours."""
    return np.roll(noise(number // 50, height, width), (number, 2 * number), (0, 1))


def made(folder: Path, seconds: float) -> dict[str, list[Path]]:
    """Clips of each kind."""
    clips = {}
    for place, (kind, (suffix, size, options)) in enumerate(KINDS.items()):
        options = {"options": {"bf": "2", "g": "12"}, "sound": seconds, **options}
        clips[kind] = [make_clip(folder / f"{place}.{suffix}", seconds, 25, size, moving, **options)]
    return clips


def found(folder: Path) -> dict[str, list[Path]]:
    """Clips below a folder, by suffix."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".mpg", ".mp4"))
    return {
        s: [p for p in paths if p.suffix == s] for s in (".mpg", ".mp4") if any(p.suffix == s for p in paths)
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call, after one that warms up."""
    work()
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(kind: str, clips: list[Path], extractor: video_patches.VideoPatches, folder: Path) -> None:
    """Prints a row."""
    config = FrameConfig()
    total = sum(read_clip(str(path), config).seconds for path in clips)
    frames = cpu_seconds(lambda: [read_clip(str(path), config) for path in clips])
    tokens = cpu_seconds(lambda: [extractor(read_clip(str(path), config).frames) for path in clips])
    source = clip_dir(folder / f"data {kind}", {f"u{place}": path for place, path in enumerate(clips)})
    out, options = folder / f"dump {kind}", Options(audio=True, max_difference=60)
    verb = cpu_seconds(lambda: dump_video(source, out, options, force=True))
    print(
        f"| {kind} | {total:.1f} | {total / frames:.0f} x | {total / tokens:.0f} x | {total / verb:.0f} x |",
        flush=True,
    )


def measure_labels(clusters: int) -> None:
    """Prints what giving the tokens of 10 s to their nearest centres takes; before anything else, because
    the most memory that a process had is all that can be asked for."""
    tokens, centres = torch.randn(5120, 2304), torch.randn(clusters, 2304)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    assign(tokens, centres)
    seconds, after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    what = f"{len(tokens)} tokens of {tokens.shape[1]} values to {clusters} centres"
    held = f"{tokens.nbytes / 2**20:.0f} MB of tokens and the {centres.nbytes / 2**20:.0f} MB of centres"
    print(
        f"{what}: {seconds:.1f} CPU seconds; {(after - before) / 1024:.0f} MB beyond the {held}\n", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clusters", type=int, default=8192, help="0 leaves the labels out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.clusters:
        measure_labels(args.clusters)
    extractor = video_patches.build(video_patches.Config(mean=[0.4] * 3, std=[0.3] * 3))
    print("| clips | seconds | frames | and tokens | speechkit video, with sound |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, clips in (found(args.clips) if args.clips else made(folder, args.seconds)).items():
            measure(kind, clips, extractor, folder)


if __name__ == "__main__":
    main()
