"""Starting or resuming a run."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from speechkit.config import dump, load_config
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.train import checkpoint, distributed
from speechkit.train.audio_visual import open_cache, start_av_bert, take_av_bert
from speechkit.train.initial import load_initial
from speechkit.train.linguistic import start_bert, take_bert
from speechkit.train.log import cut_samples
from speechkit.train.loop import Trainer
from speechkit.train.persistence import resume
from speechkit.train.pretrained import check_statistics, take_statistics
from speechkit.train.run import RunConfig, changes
from speechkit.train.setup import Setup, load_assets, prepare


def train(
    config: RunConfig,
    train: Sequence[str | Path],
    dev: Sequence[str | Path],
    exp: str | Path,
    tokenizer: str | Path | None = None,
    cmvn: str | Path | None = None,
    command: str = "",
) -> int:
    """Trains a model, from the newest checkpoint in `exp` if there is one.

    Args:
        config: of the run.
        train: training directories, one source each.
        dev: dev directories.
        exp: the experiment folder.
        tokenizer: tokenizer folder.
        cmvn: cmvn.json.
        command: the command line, for reports.

    Returns:
        0, or 75 when a signal stopped it with everything saved.

    Raises:
        InputError: bad data or configuration, or a checkpoint of another configuration.
    """
    exp = Path(exp)
    ranks = distributed.start(config.loop.timeout)
    with _lock(exp, ranks.first), _settings(config, ranks.device):
        newest = _newest(exp, config, ranks.first)
        bf16, precision = choose_precision(config.loop.precision, ranks.device)
        assets = load_assets(tokenizer, cmvn, config.features)
        assets, taken = take_statistics(config, assets, newest)
        assets = take_bert(config, assets, newest, train)
        assets = take_av_bert(config, assets, newest)
        setup = prepare(config, exp, ranks, assets, train, dev, command)
        _tell_statistics(ranks.first, setup, cmvn, taken)
        if newest is None:
            if "features" in setup.model.requires:
                check_statistics(config, setup.assets)
            for rule, report in load_initial(setup.model, config.init, setup.assets.tokenizer):
                _say(ranks.first, f"init {rule}: {report}")
            for line in start_bert(config, setup.assets, setup.model) + start_av_bert(config, setup.model):
                _say(ranks.first, line)
        trainer = Trainer(setup, bf16)
        if newest is not None:
            resume(trainer, newest)
        open_cache(config, setup.model, ranks.rank)
        if ranks.first:
            cut_samples(exp / "samples.txt", trainer.progress.update)
            checkpoint.remove_leftovers(exp)
            write_text(exp / "config.yaml", dump(config))
        _say(ranks.first, _summary(trainer, newest, precision))
        status = trainer.run()
        trainer.updater.close()
    distributed.finish()
    return status


def _say(first: bool, text: str) -> None:
    if first:
        print(f"speechkit train: {text}", file=sys.stderr, flush=True)


def _tell_statistics(first: bool, setup: Setup, cmvn: str | Path | None, taken: str) -> None:
    if setup.assets.cmvn is None and cmvn is not None:
        taken = " and ".join(setup.model.inputs) or "text"
        _say(first, f"--cmvn {cmvn} is not used: the model takes {taken}")
    elif setup.assets.cmvn is not None and taken:
        _say(first, f"CMVN statistics from {taken}")


def _summary(trainer: Trainer, newest: Path | None, precision: str) -> str:
    setup = trainer.setup
    size = sum(p.numel() for p in setup.model.parameters())
    begin = f"resuming from {newest}" if newest is not None else "starting"
    data = []
    for part in setup.train.plan.parts:
        if part.unit == "seconds":
            data.append(f"{len(part.ids)} utterances, {part.seconds.sum() / 3600:.2f} h")
        else:
            data.append(f"{len(part.ids)} sentences, {part.seconds.sum():.0f} tokens")
    return (
        f"{begin}; {size / 1e6:.2f} M parameters; {'; '.join(data)}; "
        f"{setup.train.plan.updates(0)} updates an epoch; {precision}; {setup.ranks.device}, "
        f"{setup.ranks.world} process(es), {torch.get_num_threads()} thread(s)"
    )


def choose_precision(precision: str, device: torch.device) -> tuple[bool, str]:
    """Whether to autocast to bf16, and a text that says so.

    "auto" is bf16 where the device computes in it: a GPU since Ampere, a CPU with AMX or AVX512-BF16. Asked
    for elsewhere it is emulated, correct and slow.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    if precision == "fp32" or (precision == "auto" and not native):
        return False, "fp32"
    return True, "bf16 autocast" + ("" if native else " (emulated and slow: no bf16 unit here)")


def _newest(exp: Path, config: RunConfig, first: bool) -> Path | None:
    """The checkpoint to resume from, once it is certain that it is of the same configuration."""
    found = checkpoint.checkpoints(exp)
    if not found:
        return None
    folder = found[-1][1]
    allowed, refused = changes(load_config(RunConfig, folder / "config.yaml"), config)
    if refused:
        raise InputError(
            f"{folder}: a checkpoint of another configuration ({'; '.join(refused)}); "
            "go back to it, or use another --exp"
        )
    for line in allowed:
        _say(first, f"changed since {folder.name}: {line}")
    return folder


@contextmanager
def _lock(exp: Path, first: bool) -> Iterator[None]:
    """Holds the experiment folder against a second run; a killed process lets go."""
    if not first:
        yield
        return
    exp.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(exp / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(f"{exp}: another process is training here") from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _settings(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Process-wide settings of torch, put back afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    torch.use_deterministic_algorithms(config.loop.deterministic, warn_only=device.type == "cuda")
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = filling
