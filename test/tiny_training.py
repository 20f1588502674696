"""A real but tiny CTC system, data and command line for tests of the training loop.

`python -m tiny_training <verb> ...` (with test/ on the path) is `speechkit <verb> ...` that knows the model.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from factories import make_data_dir, write_table
from torch import nn

from speechkit.jobs import ON_THIS_HOST
from speechkit.losses.ctc import ctc_loss
from speechkit.models import MODELS

MODELS["tiny"] = "tiny_training"
TEST = Path(__file__).parent


@dataclass
class Config:
    """A linear CTC with dropout on pooled features."""

    name: str = "tiny"
    width: int = 16
    dropout: float = 0.1
    reduction: int = 4
    misbehave: str = ""  # what:<update>[-<update>], see Tiny.misbehave


class Tiny(nn.Module):
    """Two linear layers over groups of frames."""

    requires = ("features", "tokens")
    inputs = ("features",)

    def __init__(self, config: Config, vocab: int, cmvn: dict | None) -> None:
        super().__init__()
        self.config, self.weights, self.update = config, {"ctc": 1.0}, 0
        mean = torch.tensor(cmvn["mean"]) if cmvn else torch.full((80,), 10.0)
        self.register_buffer("mean", mean.float())
        self.hidden = nn.Linear(len(mean) * config.reduction, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, vocab)

    def counts(self, batch):
        return {"ctc": int(batch["tokens"].lengths.sum())}

    def encode(self, batch):
        x, lengths = batch["features"].values - self.mean, self.output_lengths(batch["features"].lengths)
        x = x[:, : x.shape[1] // self.config.reduction * self.config.reduction]
        x = x.reshape(x.shape[0], -1, x.shape[2] * self.config.reduction) / 10
        x = self.head(self.dropout(torch.relu(self.norm(self.hidden(x)))))
        return {"ctc": (x.float().log_softmax(-1), lengths)}

    def loss(self, batch, update):
        log_probs, lengths = self.encode(batch)["ctc"]
        tokens = batch["tokens"]
        losses = ctc_loss(log_probs, lengths, tokens.values, tokens.lengths)
        return {"ctc": (self.misbehave(losses.sum(), update, batch), self.counts(batch)["ctc"])}

    def misbehave(self, loss, update, batch):
        """What tests ask for: nan (one utterance), sleep, a signal or two, or rank 1 killed once."""
        what, _, when = self.config.misbehave.partition(":")
        first, _, last = when.partition("-")
        if not what or not int(first) <= update <= int(last or first):
            return loss
        if what == "sleep":
            time.sleep(3600)
        if what == "nan" and min(batch.ids).endswith("000"):
            return loss * float("nan")
        for name in what.split("+") if what.startswith("SIG") else ():
            signal.raise_signal(getattr(signal, name))
        marker = Path(os.environ.get("TINY_MARKER", "none"))
        if what == "die" and os.environ.get("RANK") == "1" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    def output_lengths(self, lengths):
        return lengths // self.config.reduction

    def set_update(self, update):
        self.update = update


def build(config, assets):
    return Tiny(config, len(assets.tokenizer.vocab), assets.cmvn)


def make_dump(path, utterances=12, seed=0, prefix="", seconds=None, **options):
    """A data directory with utt2num_samples, as stage 2 leaves it."""
    seconds = seconds or [0.5 + 0.1 * (i % 7) for i in range(utterances)]
    path = make_data_dir(path, utterances, 3, seconds, seed=seed, prefix=prefix, **options)
    ids = sorted(line.split()[0] for line in (path / "utt2spk").read_text().splitlines())
    import soundfile

    wav = dict(line.split(maxsplit=1) for line in (path / "wav.scp").read_text().splitlines())
    write_table(path / "utt2num_samples", {i: str(soundfile.info(wav[i]).frames) for i in ids})
    return path


def make_tokenizer(path, texts=("one two three four five six seven eight nine zero",)):
    """A character tokenizer folder."""
    from speechkit.text.tokenizer import build_tokenizer

    build_tokenizer("char", texts).save(path)
    return path


class World:
    """Data, tokenizer and command line in a folder."""

    def __init__(self, folder: Path, utterances: int = 12, dev: int = 4) -> None:
        self.folder = folder
        self.train = make_dump(folder / "train", utterances)
        self.dev = make_dump(folder / "dev", dev, seed=7, prefix="d")
        self.tokenizer = make_tokenizer(folder / "tokens")

    def arguments(self, exp="exp", **changes):
        """`train` options; `a__b=1` becomes the override a.b=1."""
        values = {
            "model.name": "tiny",
            "plan.seconds": 2.5,
            "loop.max_updates": 12,
            "loop.precision": "fp32",  # tolerances are those of fp32, also where "auto" takes bf16
            "loop.log_every": 1,
            "loop.tensorboard": "false",
            "validation.every": 4,
            "checkpoints.average_count": 2,
            "optim.lr": 0.01,
            **{key.replace("__", "."): value for key, value in changes.items()},
        }
        folders = ["--train", self.train, "--dev", self.dev, "--tokenizer", self.tokenizer]
        return [
            *map(str, folders),
            "--exp",
            str(self.folder / exp),
            *(f"{key}={value}" for key, value in values.items()),
        ]

    def run(self, exp="exp", **changes) -> int:
        """`speechkit train` in this process; returns its exit status."""
        from speechkit.bin.__main__ import main

        return main(["train", *self.arguments(exp, **changes)])

    def command(self, exp="exp", ranks: int = 1, restarts: int = 0, **changes):
        """The same as a command line of its own."""
        start = [sys.executable, "-m", "tiny_training"]
        if ranks > 1:
            start = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                *ON_THIS_HOST,
                "--nproc-per-node",
                str(ranks),
            ]
            start += ["--max-restarts", str(restarts), "-m", "tiny_training"]
        return [*start, "train", *self.arguments(exp, **changes)]

    def start(self, *args, **kwargs) -> subprocess.Popen:
        """Starts `command` with its output in pipes."""
        environment = {**os.environ, "PYTHONPATH": f"{TEST}", "OMP_NUM_THREADS": "1"}
        command = self.command(*args, **kwargs)
        return subprocess.Popen(command, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True)


def fork(function, output: Path | None = None, **environment: str) -> int:
    """Runs a function in a forked process, whose exit status it returns; gives the process id.

    A fork has torch loaded already, so it costs milliseconds where a new process costs seconds.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        if output is not None:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering=1)
            sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1)
        os.environ.update(environment)
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
        status = function() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int) -> int:
    """Exit status of a forked process; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def on_ranks(world: int, function, output: Path | None = None) -> list[int]:
    """Runs a function as `world` ranks of one process group; their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    outputs = [output and output.with_name(f"{output.name}.{rank}") for rank in range(world)]
    pids = [fork(function, outputs[r], **common, RANK=str(r), LOCAL_RANK=str(r)) for r in range(world)]
    statuses: list[int] = []
    try:
        for pid in pids:
            statuses.append(wait(pid))
        return statuses
    finally:
        for pid in pids[len(statuses) :]:  # a test that was interrupted leaves nobody behind
            os.kill(pid, signal.SIGKILL)


def weights(folder) -> dict:
    """The weights of a checkpoint folder."""
    from speechkit.train.checkpoint import load_weights

    return load_weights(Path(folder) / "model.safetensors")


def rows(exp, kind=None) -> list[dict]:
    """Rows of metrics.jsonl without the wall times."""
    import json

    wall = ("seconds", "wait_seconds")
    found = [json.loads(line) for line in (Path(exp) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in wall} for row in found if kind in (None, row["kind"])]


if __name__ == "__main__":
    from speechkit.bin.__main__ import main

    sys.exit(main())
