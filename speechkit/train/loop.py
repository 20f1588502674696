"""The training loop: updates, validations, checkpoints, stops; a resumed run continues to the last bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext

import torch

from speechkit.config import load_kind
from speechkit.data.dataset import Loaded
from speechkit.data.plan import BatchPlan, MicroBatch
from speechkit.errors import InputError, nearest
from speechkit.train import optim
from speechkit.train.data_sets import dev_stream, references, watched
from speechkit.train.ema import EMA
from speechkit.train.freeze import Freezing
from speechkit.train.log import Log
from speechkit.train.persistence import finish, save
from speechkit.train.schedule import SCHEDULES
from speechkit.train.setup import Setup
from speechkit.train.signals import STOPPED, StopRequest, Watchdog
from speechkit.train.state import Progress, environment, git_revision
from speechkit.train.telling import note_bad, note_skipped, tell_validation, tell_window
from speechkit.train.update import Updater
from speechkit.train.validation import Validator, columns, reached


class Trainer:
    """A run in progress.

    Args:
        setup: what it runs on.
        bf16: use bfloat16 autocast.
    """

    def __init__(self, setup: Setup, bf16: bool = False) -> None:
        self.setup, self.config, self.ranks, self.model = setup, setup.config, setup.ranks, setup.model
        config = self.config
        self.freezing = Freezing(self.model, config.freeze)
        self.terms = self._terms()
        if setup.train.texts is None:  # text beside speech is welcome, not needed
            weights = self.model.weights.items()
            self.model.weights = {n: w for n, w in weights if n in self.terms or not n.startswith("text_")}
        self.optimizer = optim.build(config.optim, self.model)
        self.factor = load_kind(SCHEDULES, config.schedule.name).build(
            config.schedule, config.loop.max_updates
        )
        self.ema = EMA(self.model, config.ema.decay) if config.ema.decay else None
        self.updater = Updater(
            self.model,
            self.optimizer,
            self.ranks,
            self.terms,
            config.seed,
            config.optim.clip,
            bf16,
            config.loop.distributed == "ddp",
        )
        texts = references(setup.dev, setup.assets) if "tokens" in self.model.requires else None
        measured = [*columns(dict.fromkeys(self.terms, 0.0), self.model.weights)]
        measured += ["wer", "cer", "blank_ratio"] if texts is not None else []
        for option, name in (("metric", self.metric), *(("stop_at", n) for n in config.validation.stop_at)):
            if name not in measured:
                raise InputError(f"validation.{option}={name} is not measured{nearest(name, measured)}")
        watch = watched(setup.dev, config.validation.samples)
        tokenizer = setup.assets.tokenizer
        self.validator = Validator(self.model, self.terms, tokenizer, self.ranks, texts, watch)
        self.progress = Progress()
        self.environment = environment(self.ranks.world, self.ranks.device)
        self.revision = git_revision() if self.ranks.first else ""
        self.log: Log | None = None

    def _terms(self) -> list[str]:
        """Names of the loss terms, found on the first training batch, of speech and of text, to be read."""
        terms = {name for part in self.setup.train.plan.parts for name in self._terms_of(part)}
        return sorted(terms)

    def _terms_of(self, plan: BatchPlan) -> Iterable[str]:
        for update in range(plan.updates(0)):
            for micro_batch in plan.row(update):
                loaded = self.setup.train.reader(micro_batch)
                if loaded.batch is not None:
                    return self.model.counts(loaded.batch)
        raise InputError("no training utterance can be read: " + ": ".join(loaded.bad[0]))

    @property
    def finished(self) -> str:
        """Why there is nothing left to do; empty while there is."""
        patience = self.config.validation.patience
        if patience is not None and self.progress.waited >= patience:
            return f"no better {self.metric} in {self.progress.waited} validations"
        goals, seen = self.config.validation.stop_at, self.progress.watched
        if goals and all(name in seen and reached(name, seen[name], goals[name]) for name in goals):
            return "reached " + ", ".join(f"{name} {seen[name]:.4g}" for name in goals)
        limit = self.config.loop.max_updates
        return f"{limit} updates made" if self.progress.update >= limit else ""

    @property
    def metric(self) -> str:
        """The dev value that is best when lowest."""
        name = self.config.validation.metric
        return ("wer" if "ctc" in self.model.weights else "loss") if name == "auto" else name

    def run(self) -> int:
        """Trains to the end, or to a request to stop.

        Returns:
            0, or 75 when stopped by a signal with everything saved.
        """
        config, progress = self.config, self.progress
        limit = config.loop.max_updates
        self.log = Log(self.setup.exp, self.ranks.first, progress.update, limit, config.loop.tensorboard)
        stream = self.setup.train.stream(config, self.ranks, progress.update, limit)
        last = max(0, progress.update - 1)  # as after the last step, should a validation come first
        self.model.set_update(last)
        self.freezing(last)
        if progress.update == 0 and config.loop.dry_run:
            self.dry_run()
        with (
            StopRequest() as stop,
            Watchdog(config.loop.timeout) as watchdog,
            closing(self.log),
            closing(stream),
        ):
            asked = False
            while True:
                due = progress.update % config.validation.every == 0 or progress.update == limit
                alone = self.ranks.world == 1 and stop.signal is not None
                if due and progress.update > progress.validated and not alone:
                    self.validate(watchdog)
                    save(self)
                elif asked or alone or self._save_due():
                    save(self)
                if asked or alone:
                    self.log.line(f"stopped after update {progress.update}; the same command again resumes")
                    return STOPPED
                if self.finished:
                    break
                asked = self.step(stream, stop)
                watchdog.feed()
            finish(self, watchdog)
        return 0

    def _save_due(self) -> bool:
        every = self.config.checkpoints.every
        update = self.progress.update
        saved = self.setup.exp / f"step_{update}"
        return every is not None and update > 0 and update % every == 0 and not saved.exists()

    def step(self, stream: Iterator[Loaded], stop: StopRequest) -> bool:
        """One update; returns whether any rank was asked to stop."""
        progress, config, ranks = self.progress, self.config, self.ranks
        begun = time.perf_counter()
        update = progress.update
        row = self.setup.train.plan.row(update)
        loaded = [next(stream) for _ in range(len(row) // ranks.world)]
        waited = time.perf_counter() - begun

        self._begin_epoch(row[0].epoch, update)
        self.model.set_update(update)
        self.freezing(update)
        rate = config.optim.lr * self.factor(update)
        optim.set_rate(self.optimizer, rate)

        batches = [part.batch.to(ranks.device) if part.batch is not None else None for part in loaded]
        bad = [row for part in loaded for row in part.bad]
        *counts, broken, asked = ranks.sum([*self.updater.counts(batches), len(bad), stop.signal is not None])
        note_bad(self, bad, int(broken), update)
        outcome = self.updater(batches, counts, update)
        if outcome.finite:
            progress.skipped_in_row = 0
            if self.ema is not None:
                self.ema.update(update)
        else:
            note_skipped(self, batches, outcome, update)
        progress.update += 1
        seconds = time.perf_counter() - begun
        progress.seconds += seconds
        progress.window.add(outcome, row, seconds, waited)
        if progress.update % config.loop.log_every == 0:
            tell_window(self, rate)
        self.log.step()
        return bool(asked)

    def _begin_epoch(self, epoch: int, update: int) -> None:
        if epoch == self.progress.epoch:
            return
        self.progress.epoch, self.progress.bad = epoch, 0
        plan = self.setup.train.plan
        row = {"update": update + 1, "epoch": epoch, "plan": plan.hash(epoch), "updates": plan.updates(epoch)}
        self.log.row({**row, "kind": "epoch"}, "epoch")

    def validate(self, watchdog: Watchdog) -> dict[str, float]:
        """Runs the dev set, notes the best updates, and writes sample texts."""
        progress = self.progress
        metrics, samples = self.dev(watchdog)
        if self.metric not in metrics:
            raise InputError(f"validation.metric={self.metric} is not measured; there are {sorted(metrics)}")
        entry = self.rank(metrics)
        better = not progress.best or entry < progress.best[0][:2]
        progress.best = sorted([*progress.best, [*entry, progress.update]])
        progress.best = progress.best[: max(1, self.config.checkpoints.kept[1])]
        progress.waited = 0 if better else progress.waited + 1
        progress.validated = progress.update
        progress.watched = {name: metrics[name] for name in self.config.validation.stop_at}
        tell_validation(self, metrics, samples, "dev", " (best)" if better else "")
        return metrics

    def rank(self, metrics: dict[str, float]) -> list[float]:
        """What is compared; equal error rates are common early on, then the loss decides."""
        return [v if math.isfinite(v) else math.inf for v in (metrics[self.metric], metrics["loss"])]

    def dev(self, watchdog: Watchdog) -> tuple[dict[str, float], list]:
        begun = time.perf_counter()
        averaged = self.ema.swapped() if self.ema is not None else nullcontext()
        with averaged, self.updater.autocast(), closing(self._dev_stream()) as batches:
            metrics, samples = self.validator(batches, self.progress.update, watchdog.feed)
        watchdog.feed()
        metrics["seconds"] = round(time.perf_counter() - begun, 3)
        return metrics, samples

    def _dev_stream(self) -> Iterator[Loaded]:
        return dev_stream(self.setup.dev, self.config, self.ranks)

    def dry_run(self) -> None:
        """Forward and backward of the costliest micro-batch of the first epoch, of speech and of text."""
        for part in self.setup.train.plan.parts:
            self._dry_run(part.costliest(0))

    def _dry_run(self, worst: MicroBatch) -> None:
        size = f"{len(worst.utterances)} utterances, {worst.padded:.0f} {worst.unit} with padding"
        loaded = self.setup.train.reader(worst)
        if loaded.batch is None:
            return
        try:
            batch = loaded.batch.to(self.ranks.device)
            self.model.train()
            self.updater.gradients.reset()
            self.updater.backward(batch, self.updater.counts([batch]), 0, last=False)
        except (torch.OutOfMemoryError, MemoryError) as error:
            option = "plan.seconds" if worst.unit == "seconds" else "plan.text.tokens"
            raise InputError(
                f"the largest micro-batch ({size}) does not fit: lower {option} ({error})"
            ) from None
        self.updater.gradients.reset()
        self.log.line(f"the largest micro-batch fits: {size}")
