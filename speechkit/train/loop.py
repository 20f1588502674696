"""The training loop: updates, validations, checkpoints, stops; a resumed run continues to the last bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext

import torch

from speechkit.config import load_kind
from speechkit.data.dataset import Loaded
from speechkit.errors import InputError, nearest
from speechkit.train import optim
from speechkit.train.ema import EMA
from speechkit.train.freeze import Freezing
from speechkit.train.log import Log, append_row
from speechkit.train.persistence import finish, save
from speechkit.train.schedule import SCHEDULES
from speechkit.train.setup import Setup, dev_stream, references, watched
from speechkit.train.signals import STOPPED, StopRequest, Watchdog
from speechkit.train.state import Progress, Window, environment, git_revision
from speechkit.train.update import Outcome, Updater
from speechkit.train.validation import Validator, columns


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
        if self.metric not in measured:
            raise InputError(
                f"validation.metric={self.metric} is not measured{nearest(self.metric, measured)}"
            )
        watch = watched(setup.dev, config.validation.samples)
        tokenizer = setup.assets.tokenizer
        self.validator = Validator(self.model, self.terms, tokenizer, self.ranks, texts, watch)
        self.progress = Progress()
        self.environment = environment(self.ranks.world, self.ranks.device)
        self.revision = git_revision() if self.ranks.first else ""
        self.log: Log | None = None

    def _terms(self) -> list[str]:
        """Names of the loss terms, found on the first training batch that can be read."""
        data = self.setup.train
        for update in range(data.plan.updates(0)):
            for micro_batch in data.plan.row(update):
                loaded = data.reader(micro_batch)
                if loaded.batch is not None:
                    return sorted(self.model.counts(loaded.batch))
        raise InputError("no training utterance can be read: " + ": ".join(loaded.bad[0]))

    @property
    def finished(self) -> str:
        """Why there is nothing left to do; empty while there is."""
        patience = self.config.validation.patience
        if patience is not None and self.progress.waited >= patience:
            return f"no better {self.metric} in {self.progress.waited} validations"
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
        self._note_bad(bad, int(broken), update)
        outcome = self.updater(batches, counts, update)
        if outcome.finite:
            progress.skipped_in_row = 0
            if self.ema is not None:
                self.ema.update(update)
        else:
            self._skip(batches, outcome, update)
        progress.update += 1
        seconds = time.perf_counter() - begun
        progress.seconds += seconds
        self._account(outcome, row, seconds, waited)
        if progress.update % config.loop.log_every == 0:
            self._log_window(rate)
        self.log.step()
        return bool(asked)

    def _begin_epoch(self, epoch: int, update: int) -> None:
        if epoch == self.progress.epoch:
            return
        self.progress.epoch, self.progress.bad = epoch, 0
        plan = self.setup.train.plan
        row = {"update": update + 1, "epoch": epoch, "plan": plan.hash(epoch), "updates": plan.updates(epoch)}
        self.log.row({**row, "kind": "epoch"}, "epoch")

    def _note_bad(self, bad: list[tuple[str, str, str]], count: int, update: int) -> None:
        """Lists unreadable utterances, and ends the run on all ranks when they are too many."""
        progress, size = self.progress, len(self.setup.train.manifest)
        for utterance, reason, detail in bad:
            progress.reasons[reason] = progress.reasons.get(reason, 0) + 1
            where = {"update": update + 1, "rank": self.ranks.rank, "utterance": utterance}
            append_row(self.setup.exp / "bad_samples.jsonl", {**where, "reason": reason, "detail": detail})
        progress.bad += count
        if count and progress.bad > self.config.data.max_bad * size:
            reasons = ", ".join(f"{n} x {reason}" for reason, n in sorted(progress.reasons.items()))
            example = f"; {bad[0][0]}: {bad[0][1]}: {bad[0][2]}" if bad else ""
            raise InputError(
                f"{progress.bad} of {size} training utterances cannot be read, more than "
                f"data.max_bad={self.config.data.max_bad} allows ({reasons}{example}); "
                f"they are listed in {self.setup.exp / 'bad_samples.jsonl'}"
            )

    def _skip(self, batches: list, outcome: Outcome, update: int) -> None:
        """Reports an update that was left out because its loss or gradient is not finite."""
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_row += 1
        blamed = self.updater.blame(batches, update)
        row = {
            "update": update + 1,
            "rank": self.ranks.rank,
            "norm": str(outcome.norm),
            "sums": [str(value) for value in outcome.sums],
            "ids": [utterance for batch in batches if batch is not None for utterance in batch.ids],
            "blamed": blamed,
        }
        append_row(self.setup.exp / "nonfinite.jsonl", row)
        names = ", ".join(entry["utterance"] for entry in blamed[:5]) or "no utterance alone"
        file = self.setup.exp / "nonfinite.jsonl"
        self.log.line(f"update {update}: loss or gradient not finite, skipped ({names}; see {file})")
        if progress.skipped_in_row >= self.config.loop.max_nonfinite:
            raise InputError(
                f"{progress.skipped_in_row} updates in a row were not finite (loop.max_nonfinite); "
                f"the batches are in {file}; lower optim.lr, or look at the utterances named there"
            )

    # Telling

    def _account(self, outcome: Outcome, row: list, seconds: float, waited: float) -> None:
        window = self.progress.window
        if not window.sums:
            window.sums, window.counts = [0.0] * len(self.terms), [0.0] * len(self.terms)
        window.seconds += seconds
        window.waited += waited
        window.audio += sum(part.seconds for part in row)
        window.padded += sum(part.padded for part in row)
        if outcome.finite:
            window.updates += 1
            window.norm += outcome.norm
            window.sums = [a + b for a, b in zip(window.sums, outcome.sums)]
            window.counts = [a + b for a, b in zip(window.counts, outcome.counts)]

    def _log_window(self, rate: float) -> None:
        progress, window = self.progress, self.progress.window
        found = zip(self.terms, window.sums, window.counts)  # what is watched now and then may be missing
        terms = {t: s / max(1, n) for t, s, n in found if n or t in self.model.weights}
        row = {
            "update": progress.update,
            "epoch": progress.epoch,
            "kind": "train",
            **columns(terms, self.model.weights),
            "lr": rate,
            "grad_norm": window.norm / max(1, window.updates),
            "skipped": progress.skipped,
            "bad": progress.bad,
            "audio_seconds": round(window.audio, 3),
            "padding": 1 - window.audio / window.padded,
            "seconds": round(window.seconds, 4),
            "wait_seconds": round(window.waited, 4),
        }
        self.log.row(row, "train")
        speed = window.audio / max(1e-9, window.seconds)
        limit = self.config.loop.max_updates
        left = (limit - progress.update) * progress.seconds / progress.update
        seen = "".join(f"{t} {v:.3g} " for t, v in terms.items() if t not in self.model.weights)
        self.log.line(
            f"update {progress.update}/{limit} epoch {progress.epoch} loss {row['loss']:.4g} {seen}"
            f"lr {rate:.2e} norm {row['grad_norm']:.3g} | {speed:.0f} s of audio/s, "
            f"padding {100 * row['padding']:.0f} %, "
            f"waiting {100 * window.waited / max(1e-9, window.seconds):.0f} %, left {_duration(left)}"
        )
        if window.updates and hasattr(self.model, "advise"):
            advice = self.model.advise({**dict.fromkeys(self.terms, 0.0), **row})
            if advice:
                self.log.line(advice)
        progress.window = Window()

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
        self.tell(metrics, samples, "dev", " (best)" if better else "")
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

    def tell(self, metrics: dict[str, float], samples: list, kind: str, note: str = "") -> None:
        update = self.progress.update
        self.log.row({"update": update, "epoch": self.progress.epoch, "kind": kind, **metrics}, kind)
        shown = ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k != "seconds")
        self.log.line(f"update {update} {kind}: {shown}{note}")
        if metrics.get("blank_ratio", 0) > 0.99:
            self.log.line("only blanks so far: usual early on; if it lasts, lower optim.lr or warm up longer")
        if self.ranks.first and samples:
            text = "".join(f"{i} ref: {ref}\n{i} hyp: {hyp}\n" for i, ref, hyp in samples)
            with open(self.setup.exp / "samples.txt", "a", encoding="utf-8") as file:
                file.write(f"== update {update} {kind}\n{text}")

    def dry_run(self) -> None:
        """Forward and backward of the costliest micro-batch of the first epoch."""
        plan = self.setup.train.plan
        worst = plan.costliest(0)
        size = f"{len(worst.utterances)} utterances, {worst.padded:.0f} s with padding"
        loaded = self.setup.train.reader(worst)
        if loaded.batch is None:
            return
        try:
            batch = loaded.batch.to(self.ranks.device)
            self.model.train()
            self.updater.gradients.reset()
            self.updater.backward(batch, self.updater.counts([batch]), 0, last=False)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise InputError(
                f"the largest micro-batch ({size}) does not fit: lower plan.seconds ({error})"
            ) from None
        self.updater.gradients.reset()
        self.log.line(f"the largest micro-batch fits: {size}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
