"""Training steps per second of a Conformer-CTC: SpeechKit and ESPnet, same sizes, same batches, in turn.

    tools/install_espnet.sh <venv>                     # once, into a venv that has torch
    <venv>/bin/python test/bench/bench_training.py

A step is forward, CTC, backward, clipping and AdamW on a ragged batch of random features. The systems
take turns within one process, so that whatever else the machine does meets all of them; the ratio is
the median over the turns. Without ESPnet only our numbers are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.config import from_dict  # noqa: E402
from speechkit.data.batch import Batch, Padded  # noqa: E402
from speechkit.models import ctc  # noqa: E402
from speechkit.models.assets import Assets  # noqa: E402

BINS = 80


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dim", type=int, default=144)
    add("--layers", type=int, default=4)
    add("--heads", type=int, default=4)
    add("--feed-forward", type=int, default=576)
    add("--kernel", type=int, default=15)
    add("--vocab", type=int, default=32)
    add("--batch", type=int, default=16, help="utterances")
    add(
        "--seconds",
        type=float,
        default=3.3,
        help="mean duration; lengths spread evenly by --spread around it",
    )
    add("--spread", type=float, default=0.4, help="0.4: from 0.6 to 1.4 times the mean")
    add("--dropout", type=float, default=0.1)
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=6)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precisions", help="fp32, bf16 or both with a comma; default: bf16 only where the hardware has it")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor seconds, for a busy machine")
    chosen = parser.parse_args()
    if chosen.precisions is None:  # without instructions for it, bf16 is emulated and ten times slower
        has_bf16 = chosen.device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        chosen.precisions = "fp32,bf16" if has_bf16 else "fp32"
    return chosen


def make_batch(o: argparse.Namespace) -> Batch:
    """Random features of ragged lengths, and 12 tokens a second."""
    generator = torch.Generator().manual_seed(1)
    spread = torch.linspace(1 - o.spread, 1 + o.spread, o.batch)[torch.randperm(o.batch, generator=generator)]
    frames = (100 * o.seconds * spread).round().long()
    counts = (frames * 0.12).long()
    features = torch.randn(o.batch, int(frames.max()), BINS, generator=generator)
    tokens = torch.randint(2, o.vocab - 1, (o.batch, int(counts.max())), generator=generator)
    fields = {"features": Padded(features, frames), "tokens": Padded(tokens, counts)}
    ids = [str(i) for i in range(o.batch)]
    return Batch(ids, torch.arange(o.batch), None, fields).to(o.device)


def our_system(o: argparse.Namespace, **changes: object) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """Our model and what computes its loss."""
    sizes = {
        "dim": o.dim,
        "layers": o.layers,
        "heads": o.heads,
        "kernel": o.kernel,
        "feed_forward": o.feed_forward,
    }
    encoder = {"dropout": o.dropout, "subsampling": {"factor": 4, "channels": None}, **sizes, **changes}
    config = from_dict(ctc.Config, {"encoder": encoder})
    model = ctc.build(config, Assets(SimpleNamespace(vocab=[""] * o.vocab)))

    def loss(batch: Batch) -> Tensor:
        total, count = model.loss(batch, 0)["ctc"]
        return total / count

    return model, loss


def espnet_system(o: argparse.Namespace) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """ESPnet's encoder with the settings of its recipes, and its CTC."""
    from espnet2.asr.ctc import CTC
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    encoder = ConformerEncoder(
        BINS,
        o.dim,
        o.heads,
        o.feed_forward,
        o.layers,
        dropout_rate=o.dropout,
        positional_dropout_rate=o.dropout,
        attention_dropout_rate=0.0,
        input_layer="conv2d",
        macaron_style=True,
        rel_pos_type="latest",
        pos_enc_layer_type="rel_pos",
        selfattention_layer_type="rel_selfattn",
        cnn_module_kernel=o.kernel,
    )
    head = CTC(o.vocab, o.dim, dropout_rate=0.0, ctc_type="builtin")

    def loss(batch: Batch) -> Tensor:
        frames, lengths, _ = encoder(batch["features"].values, batch["features"].lengths)
        return head(frames, lengths, batch["tokens"].values, batch["tokens"].lengths)

    return nn.ModuleList([encoder, head]), loss


class Trainer:
    """One system with its optimiser; `step` returns seconds."""

    def __init__(self, model: nn.Module, loss: Callable[[Batch], Tensor], o: argparse.Namespace) -> None:
        self.model, self.loss, self.device = model.to(o.device).train(), loss, o.device
        self.clock = {"wall": time.perf_counter, "cpu": time.process_time}[o.clock]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, 1e-4, fused=True)

    def step(self, batch: Batch, bf16: bool) -> float:
        """Trains on the batch once."""
        start = self.clock()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=bf16):
            loss = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.clock() - start


def main() -> None:
    o = options()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    systems = {
        "speechkit": our_system(o),
        "speechkit, 32 channels": our_system(o, subsampling={"factor": 4, "channels": 32}),
        "speechkit, 32 channels, shared dropout": our_system(
            o, subsampling={"factor": 4, "channels": 32}, shared_dropout=True
        ),
        "speechkit, stacked frames": our_system(o, subsampling={"kind": "stack", "factor": 4}),
    }
    try:
        systems["espnet"] = espnet_system(o)
    except ImportError as error:
        print(f"ESPnet is not installed ({error}): our numbers only", file=sys.stderr)
    trainers = {name: Trainer(model, loss, o) for name, (model, loss) in systems.items()}
    batch = make_batch(o)
    print(
        f"torch {torch.__version__}, {o.device}, {o.threads} threads, {o.clock} clock; {o.batch} utterances "
        f"of {o.seconds} s +- {o.spread:.0%}, {o.layers} x {o.dim}, {o.heads} heads, kernel {o.kernel}"
    )
    for precision in o.precisions.split(","):
        times: dict[str, list[float]] = {name: [] for name in trainers}
        for turn in range(o.rounds + 1):
            for name, trainer in trainers.items():
                seconds = trainer.step(batch, precision == "bf16")
                if turn:  # the first one warms up
                    times[name].append(seconds)
        for name, trainer in trainers.items():
            line = f"{precision} {name:40s} {1 / statistics.median(times[name]):7.2f} steps/s"
            line += f"  {sum(p.numel() for p in trainer.parameters) / 1e6:5.2f} M parameters"
            if "espnet" in times and name != "espnet":
                ratio = statistics.median(e / t for e, t in zip(times["espnet"], times[name]))
                line += f"  {ratio:5.2f} x ESPnet"
            print(line, flush=True)


if __name__ == "__main__":
    main()
