"""The configuration of a training run, and what of it may change between a stop and a resume."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from speechkit.config import check_range, differences, kind, to_dict
from speechkit.data import augment, dataset, plan
from speechkit.frontends import FEATURES
from speechkit.models import MODELS
from speechkit.train import initial, optim, validation
from speechkit.train.freeze import Freeze
from speechkit.train.schedule import SCHEDULES


@dataclass
class LoopConfig:
    """The loop."""

    max_updates: int = 10000
    """Updates of the run; schedules stretch over it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast where the GPU or CPU computes in it (AMX, AVX512-BF16), else fp32."""
    threads: int = 0
    """Threads of CPU operations; 0 leaves it to torch and OMP_NUM_THREADS."""
    deterministic: bool = True
    """Refuse operations whose result differs from run to run (a GPU only warns about them)."""
    distributed: Literal["flat", "ddp"] = "flat"
    """flat: one reproducible all-reduce an update; ddp: overlapped reduction, not bit-exact."""
    log_every: int = 50
    """Updates between training rows."""
    tensorboard: bool = True
    """Write TensorBoard events too."""
    timeout: float = 1800.0
    """Seconds without an update, dev batch or peer's answer until the run fails, with stacks printed."""
    max_nonfinite: int = 20
    """Skipped updates in a row that end the run."""
    dry_run: bool = False
    """First run the costliest micro-batch forward and backward, so that lack of memory shows at once."""

    def __post_init__(self) -> None:
        check_range("max_updates", self.max_updates, 1)
        check_range("threads", self.threads, 0)
        check_range("log_every", self.log_every, 1)
        check_range("timeout", self.timeout, 0)
        check_range("max_nonfinite", self.max_nonfinite, 1)


@dataclass
class CheckpointConfig:
    """What is saved and kept. A checkpoint is saved at every validation, on request (SIGUSR1, SIGTERM,
    Ctrl-C), and at the end."""

    every: int | None = None
    """Updates between further checkpoints; None for none."""
    keep_last: int = 2
    """Newest checkpoints that are kept."""
    keep_best: int = 5
    """Best validated checkpoints that are kept."""
    average: Literal["best", "last", "none"] = "best"
    """What final/ is the mean of: the best checkpoints (fewer where that is better on the dev set), the last
    ones, or only the last one."""
    average_count: int = 5
    """How many (fewer when there are fewer)."""

    def __post_init__(self) -> None:
        if self.every is not None:
            check_range("every", self.every, 1)
        check_range("keep_last", self.keep_last, 1)
        check_range("keep_best", self.keep_best, 0)
        check_range("average_count", self.average_count, 1)

    @property
    def kept(self) -> tuple[int, int]:
        """How many of the last and of the best are kept, averaging included."""
        last = max(self.keep_last, self.average_count if self.average == "last" else 1)
        return last, max(self.keep_best, self.average_count if self.average == "best" else 0)


@dataclass
class EmaConfig:
    """Average of the weights over updates; validation and final/ use it when there is one."""

    decay: float = 0.0
    """Share that stays at each update, such as 0.999; 0 keeps no average."""

    def __post_init__(self) -> None:
        check_range("decay", self.decay, 0, 1, open_high=True)


@dataclass
class RunConfig:
    """Everything a training run depends on besides its data."""

    seed: int = 1
    """Of weights, order, augmentation and masks."""
    model: Any = kind(MODELS, "ctc")
    """The system."""
    features: Any = kind(FEATURES, "fbank")
    """Waveform to features."""
    augment: augment.Config = field(default_factory=augment.Config)
    """Changes of the waveform in training."""
    data: dataset.Config = field(default_factory=dataset.Config)
    """Reading."""
    plan: plan.Config = field(default_factory=plan.Config)
    """Batches."""
    optim: optim.Config = field(default_factory=optim.Config)
    """Optimiser."""
    schedule: Any = kind(SCHEDULES, "tri_stage")
    """Learning rate over updates."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Averaged weights."""
    init: initial.Config = field(default_factory=initial.Config)
    """Weights to start from."""
    freeze: list[Freeze] = field(default_factory=list)
    """Parameters that do not learn, or only later."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Updates, precision, logging."""
    validation: validation.Config = field(default_factory=validation.Config)
    """The dev set."""
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Saving and keeping."""

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**31 - 1)


RESUMABLE = (
    "data.workers",
    "data.ahead",
    "data.max_bad",
    "loop.max_updates",
    "loop.threads",
    "loop.log_every",
    "loop.tensorboard",
    "loop.timeout",
    "loop.max_nonfinite",
    "loop.dry_run",
    "validation.patience",
    "validation.stop_at*",
    "validation.seconds",
    "validation.samples",
    "checkpoints.*",
)
"""Values that a resumed run may change (globs); with any other it would be a different run."""


def changes(old: RunConfig, new: RunConfig) -> tuple[list[str], list[str]]:
    """Lines `key: old -> new` of the changes that a resume allows, and of those that it does not."""
    lines = differences(to_dict(old), to_dict(new))
    allowed = [line for line in lines if any(fnmatchcase(line.split(":")[0], key) for key in RESUMABLE)]
    return allowed, [line for line in lines if line not in allowed]
