"""What a run tells: rows of what it does, lines for the log, and lists of what it left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speechkit.errors import InputError
from speechkit.train.log import append_row
from speechkit.train.state import Window
from speechkit.train.update import Outcome
from speechkit.train.validation import columns

if TYPE_CHECKING:
    from speechkit.train.loop import Trainer


def note_bad(run: Trainer, bad: list[tuple[str, str, str]], count: int, update: int) -> None:
    """Lists unreadable utterances, and ends the run on all ranks when they are too many.

    Args:
        run: the run.
        bad: id, reason and detail of those that this rank met.
        count: number of them over all ranks.
        update: at which they were met, from 0.

    Raises:
        InputError: more of an epoch than `data.max_bad` allows.
    """
    progress, size = run.progress, run.setup.train.size
    for utterance, reason, detail in bad:
        progress.reasons[reason] = progress.reasons.get(reason, 0) + 1
        where = {"update": update + 1, "rank": run.ranks.rank, "utterance": utterance}
        append_row(run.setup.exp / "bad_samples.jsonl", {**where, "reason": reason, "detail": detail})
    progress.bad += count
    if count and progress.bad > run.config.data.max_bad * size:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in sorted(progress.reasons.items()))
        example = f"; {bad[0][0]}: {bad[0][1]}: {bad[0][2]}" if bad else ""
        raise InputError(
            f"{progress.bad} of {size} training utterances cannot be read, more than "
            f"data.max_bad={run.config.data.max_bad} allows ({reasons}{example}); "
            f"they are listed in {run.setup.exp / 'bad_samples.jsonl'}"
        )


def note_skipped(run: Trainer, batches: list, outcome: Outcome, update: int) -> None:
    """Reports an update that was left out because its loss or gradient is not finite.

    Args:
        run: the run.
        batches: this rank's micro-batches.
        outcome: of the update.
        update: its number, from 0.

    Raises:
        InputError: it was the last of `loop.max_nonfinite` in a row.
    """
    progress = run.progress
    progress.skipped += 1
    progress.skipped_in_row += 1
    blamed = run.updater.blame(batches, update)
    row = {
        "update": update + 1,
        "rank": run.ranks.rank,
        "norm": str(outcome.norm),
        "sums": [str(value) for value in outcome.sums],
        "ids": [utterance for batch in batches if batch is not None for utterance in batch.ids],
        "blamed": blamed,
    }
    append_row(run.setup.exp / "nonfinite.jsonl", row)
    names = ", ".join(entry["utterance"] for entry in blamed[:5]) or "no utterance alone"
    file = run.setup.exp / "nonfinite.jsonl"
    run.log.line(f"update {update}: loss or gradient not finite, skipped ({names}; see {file})")
    if progress.skipped_in_row >= run.config.loop.max_nonfinite:
        raise InputError(
            f"{progress.skipped_in_row} updates in a row were not finite (loop.max_nonfinite); "
            f"the batches are in {file}; lower optim.lr, or look at the utterances named there"
        )


def tell_window(run: Trainer, rate: float) -> None:
    """Writes the training row since the last one, with the model's advice, and begins a new window.

    Args:
        run: the run.
        rate: learning rate of the last update.
    """
    progress, window = run.progress, run.progress.window
    found = zip(run.terms, window.sums, window.counts)  # what is watched now and then may be missing
    terms = {t: s / max(1, n) for t, s, n in found if n or t in run.model.weights}
    row = {
        "update": progress.update,
        "epoch": progress.epoch,
        "kind": "train",
        **columns(terms, run.model.weights),
        "lr": rate,
        "grad_norm": window.norm / max(1, window.updates),
        "skipped": progress.skipped,
        "bad": progress.bad,
        **_amounts(window),
        "seconds": round(window.seconds, 4),
        "wait_seconds": round(window.waited, 4),
    }
    run.log.row(row, "train")
    limit = run.config.loop.max_updates
    left = (limit - progress.update) * progress.seconds / progress.update
    seen = "".join(f"{t} {v:.3g} " for t, v in terms.items() if t not in run.model.weights)
    run.log.line(
        f"update {progress.update}/{limit} epoch {progress.epoch} loss {row['loss']:.4g} {seen}"
        f"lr {rate:.2e} norm {row['grad_norm']:.3g} | {_speeds(row, window.seconds)}"
        f"waiting {100 * window.waited / max(1e-9, window.seconds):.0f} %, left {_duration(left)}"
    )
    if window.updates and hasattr(run.model, "advise"):
        advice = run.model.advise({**dict.fromkeys(run.terms, 0.0), **row})
        if advice:
            run.log.line(advice)
    progress.window = Window()


def _amounts(window: Window) -> dict[str, float]:
    """Columns about the speech, or the text, or both, that a window has seen."""
    row = {}
    if window.padded:
        row |= {"audio_seconds": round(window.audio, 3), "padding": 1 - window.audio / window.padded}
    if window.padded_tokens:
        row |= {"text_tokens": round(window.tokens), "text_padding": 1 - window.tokens / window.padded_tokens}
    return row


def _speeds(row: dict[str, float], seconds: float) -> str:
    """How much of each a second, and the share of padding."""
    units = (("s of audio", "audio_seconds", "padding"), ("tokens of text", "text_tokens", "text_padding"))
    return "".join(
        f"{row[amount] / max(1e-9, seconds):.0f} {unit}/s, padding {100 * row[padding]:.0f} %, "
        for unit, amount, padding in units
        if amount in row
    )


def tell_validation(
    run: Trainer, metrics: dict[str, float], samples: list[tuple[str, str, str]], kind: str, note: str = ""
) -> None:
    """Writes a validation: its row, a line, and sample texts.

    Args:
        run: the run.
        metrics: what was measured.
        samples: id, reference and hypothesis of utterances.
        kind: "dev" or "final".
        note: end of the line.
    """
    update = run.progress.update
    run.log.row({"update": update, "epoch": run.progress.epoch, "kind": kind, **metrics}, kind)
    shown = ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k != "seconds")
    run.log.line(f"update {update} {kind}: {shown}{note}")
    if metrics.get("blank_ratio", 0) > 0.99:
        run.log.line("only blanks so far: usual early on; if it lasts, lower optim.lr or warm up longer")
    if run.ranks.first and samples:
        text = "".join(f"{i} ref: {ref}\n{i} hyp: {hyp}\n" for i, ref, hyp in samples)
        with open(run.setup.exp / "samples.txt", "a", encoding="utf-8") as file:
            file.write(f"== update {update} {kind}\n{text}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
