"""What a run knows beside its weights: how far it is, random states, and what it runs on."""

from __future__ import annotations

import platform
import random
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from speechkit import __version__
from speechkit.data.plan import MicroBatch
from speechkit.train.update import Outcome


@dataclass
class Window:
    """Sums since the last training row.

    Attributes:
        updates: how many.
        sums: of each loss term.
        counts: normaliser of each loss term.
        norm: sum of the gradient norms.
        audio: seconds of audio.
        padded: seconds of audio with padding.
        tokens: tokens of text sets.
        padded_tokens: the same with padding.
        seconds: wall time.
        waited: wall time spent waiting for data.
    """

    updates: int = 0
    sums: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    norm: float = 0.0
    audio: float = 0.0
    padded: float = 0.0
    tokens: float = 0.0
    padded_tokens: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, outcome: Outcome, row: Sequence[MicroBatch], seconds: float, waited: float) -> None:
        """Adds an update, whose losses count only when it was made.

        Args:
            outcome: of the update.
            row: its micro-batches, of all ranks.
            seconds: wall time that it took.
            waited: part of it spent waiting for data.
        """
        self.seconds += seconds
        self.waited += waited
        speech = [part for part in row if part.unit == "seconds"]
        text = [part for part in row if part.unit == "tokens"]
        self.audio += sum(part.length for part in speech)
        self.padded += sum(part.padded for part in speech)
        self.tokens += sum(part.length for part in text)
        self.padded_tokens += sum(part.padded for part in text)
        if not self.sums:
            self.sums, self.counts = [0.0] * len(outcome.sums), [0.0] * len(outcome.sums)
        if outcome.finite:
            self.updates += 1
            self.norm += outcome.norm
            self.sums = [a + b for a, b in zip(self.sums, outcome.sums)]
            self.counts = [a + b for a, b in zip(self.counts, outcome.counts)]


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        update: updates made, and the number of the next one.
        epoch: the epoch of the last update; -1 before the first.
        validated: the last update after which the dev set was run.
        best: `[metric, loss, update]` of the best validations, best first.
        waited: validations since the best one.
        watched: latest dev values of what `validation.stop_at` names.
        skipped: updates skipped for a loss or gradient that was not finite.
        skipped_in_row: of these, the latest without a good one between.
        bad: utterances of this epoch that could not be read, over all ranks.
        reasons: how often each reason, over the whole run, on rank 0.
        seconds: wall time in training updates.
        window: sums since the last training row.
    """

    update: int = 0
    epoch: int = -1
    validated: int = 0
    best: list[list[float]] = field(default_factory=list)
    waited: int = 0
    watched: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    skipped_in_row: int = 0
    bad: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    window: Window = field(default_factory=Window)

    def to_dict(self) -> dict:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Progress:
        """The progress that `to_dict` described."""
        return cls(**{**values, "window": Window(**values["window"])})


def random_state() -> dict:
    """The states of all random generators, as tensors and numbers."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss],
        "numpy": [keys.tolist(), int(position), int(has_gauss), float(cached)],
    }


def set_random_state(state: dict) -> None:
    """Puts back what `random_state` returned (GPU states only on as many GPUs)."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, cached))


def environment(world: int, device: torch.device) -> dict[str, str]:
    """What the last bit of a result depends on, besides code, configuration and data."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "speechkit": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cpu": _cpu(),
        "gpu": gpu,
        "threads": str(torch.get_num_threads()),
        "world": str(world),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({torch.backends.cpu.get_cpu_capability()})"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def git_revision() -> str:
    """The revision of this code, with `+dirty` when files differ from it; empty outside a repository."""
    folder = Path(__file__).parent
    try:
        run = ["git", "-C", str(folder)]
        revision = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changes = subprocess.run(
            [*run, "status", "--porcelain", "-uno", "."], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return revision.stdout.strip() + ("+dirty" if changes.stdout.strip() else "")
