"""A step of AV-BERT's pre-training in its published size: clips a second, memory, and attention's share.

    python test/bench/bench_av_bert.py [--clips 8] [--seconds 10] [--checkpointing] [--max-video-tokens 1024]

Clips are noise of 10 s: 60 frames of 256 x 256 pixels and 1,000 frames of features, 5,453 tokens. A step is
forward, backward and Adam. Attention's share is the time of the attention kernel alone, forward and backward,
on tensors of the same shapes, times the blocks, over that of a step. Without a GPU the peak is that of the
process. CPU time (`--clock cpu`) does not count what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.data.batch import Batch, Padded  # noqa: E402
from speechkit.encoders import av_bert_config  # noqa: E402
from speechkit.layers.attention import attend  # noqa: E402
from speechkit.layers.masks import Packing  # noqa: E402
from speechkit.models import av_bert  # noqa: E402
from speechkit.models.assets import Assets  # noqa: E402
from speechkit.train.start import choose_precision  # noqa: E402


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--clips", type=int, default=8)
    add("--seconds", type=int, default=10)
    add("--size", type=int, default=256, help="pixels")
    add("--max-video-tokens", type=int)
    add("--checkpointing", action="store_true")
    add("--update", type=int, default=55000, help="of the masking schedule")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=2)
    add("--clock", choices=("wall", "cpu"), default="wall")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def make_batch(o: argparse.Namespace) -> Batch:
    """Noise with random labels."""
    frames, pictures, count = 100 * o.seconds, 6 * o.seconds, o.clips
    tokens = pictures // 3 * (o.size // 16) ** 2
    values = {
        "features": torch.randn(count, frames, 64),
        "kmeans_audio": torch.randint(0, 4096, (count, frames // 3)),
        "video": torch.randint(0, 256, (count, pictures, o.size, o.size, 3), dtype=torch.uint8),
        "kmeans_video": torch.randint(0, 8192, (count, tokens)),
    }
    fields = {name: Padded(x, torch.full((count,), x.size(1))) for name, x in values.items()}
    return Batch([f"clip{i}" for i in range(count)], torch.arange(count), None, fields)


def timed(step: Callable[[], object], o: argparse.Namespace) -> float:
    """Median seconds of a call, after a first one."""
    clock = time.process_time if o.clock == "cpu" else time.perf_counter
    found = []
    for _ in range(o.rounds + 1):
        begun = clock()
        step()
        if o.device == "cuda":
            torch.cuda.synchronize()
        found.append(clock() - begun)
    return statistics.median(found[1:])


def main() -> None:
    o = options()
    torch.set_num_threads(o.threads)
    device = torch.device(o.device)
    bf16, precision = choose_precision(o.precision, device)
    encoder = av_bert_config.Config(checkpointing=o.checkpointing)
    config = av_bert.Config(encoder=encoder, max_video_tokens=o.max_video_tokens)
    assets = Assets(cmvn={"mean": [0.0] * 64, "std": [1.0] * 64}, video={"mean": [0.5] * 3, "std": [0.3] * 3})
    model = av_bert.build(config, assets).to(device).train()
    model.set_update(o.update)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4, betas=(0.9, 0.99), fused=True)
    batch = make_batch(o).to(device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = model.loss(batch, o.update)
        optimizer.zero_grad()
        sum(losses[name][0] / losses[name][1] for name in model.weights).backward()
        optimizer.step()

    seconds = timed(step, o)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    clips = model.draw(batch)
    packing = Packing((clips.audio.lengths + clips.video.lengths).to(device))
    dtype = torch.bfloat16 if bf16 else torch.float32
    qkv = [
        torch.randn(packing.total, 4, 32, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    ]
    attention = timed(lambda: attend(*qkv, packing, packing).sum().backward(), o)
    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": precision,
        "clips": o.clips,
        "tokens_a_clip": packing.total // o.clips,
        "seconds_a_step": round(seconds, 4),
        "clips_a_second": round(o.clips / seconds, 3),
        "peak_gib": round(peak, 2),
        "attention_share": round(encoder.layers * attention / seconds, 3),
        "checkpointing": o.checkpointing,
        "clock": o.clock,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
