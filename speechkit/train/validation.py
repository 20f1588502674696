"""Validation: dev loss, greedy error rates, blank ratio, and a few utterances to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.data.batch import Batch
from speechkit.data.dataset import Loaded
from speechkit.errors import InputError
from speechkit.losses.ctc import ctc_loss
from speechkit.search.greedy import ctc_greedy
from speechkit.train.distributed import Ranks


@dataclass
class Config:
    """Validation."""

    every: int = 500
    """Updates between validations; a checkpoint is saved at each, and the last update has one."""
    metric: str = "auto"
    """What is best when lowest, a dev value in metrics.jsonl; auto: wer with a CTC head, else loss."""
    patience: int | None = None
    """Stop after so many validations without a better metric; None never does."""
    stop_at: dict[str, float] = field(default_factory=dict)
    """Stop once these dev values are all reached: an accuracy is as high, anything else as low."""
    seconds: float = 200.0
    """Audio in a dev batch, padding included; batches of text have plan.text.tokens."""
    samples: int = 5
    """Dev utterances whose text is written to samples.txt at each validation, the same ones each time."""

    def __post_init__(self) -> None:
        check_range("every", self.every, 1)
        check_range("seconds", self.seconds, 0.1)
        check_range("samples", self.samples, 0)
        if self.patience is not None:
            check_range("patience", self.patience, 1)


def reached(name: str, value: float, goal: float) -> bool:
    """Whether a dev value is as good as wanted."""
    return value >= goal if name.startswith("accuracy") else value <= goal


@dataclass
class _Totals:
    """Sums over the dev set; `vector` is what the ranks add up. `errors` has a row for each output."""

    losses: list[float]
    counts: list[float]
    errors: list[list[float]]
    frames: list[float] = field(default_factory=lambda: [0.0] * 2)

    def vector(self) -> list[float]:
        return [*self.losses, *self.counts, *self.frames, *sum(self.errors, [])]


def columns(values: dict[str, float], weights: dict[str, float]) -> dict[str, float]:
    """Terms as rows of metrics.jsonl name them, and the objective as `loss`.

    A term that is trained on becomes `loss_<term>`; one that is only watched, such as an accuracy, keeps
    its name.
    """
    named = {f"loss_{term}" if term in weights else term: value for term, value in values.items()}
    return {**named, "loss": sum(weight * values[term] for term, weight in weights.items())}


WORD_ERRORS, WORDS, CHARACTER_ERRORS, CHARACTERS = range(4)
BLANKS, FRAMES = range(2)


class Validator:
    """Runs a model over the dev set.

    Args:
        model: a `speechkit.models.Model`.
        terms: names of its loss terms.
        tokenizer: turns greedy tokens into text, or None.
        ranks: this process and the others; each validates its share.
        texts: reference text of a dev utterance, normalised, by id.
        watch: ids of the utterances whose text is reported.
    """

    def __init__(
        self,
        model: nn.Module,
        terms: list[str],
        tokenizer: object | None,
        ranks: Ranks,
        texts: Callable[[str], str] | None,
        watch: Iterable[str] = (),
    ) -> None:
        self.model, self.terms, self.tokenizer, self.ranks = model, terms, tokenizer, ranks
        self.texts, self.watch = texts, set(watch)
        self.outputs = getattr(model, "outputs", ("",))

    def __call__(
        self, batches: Iterable[Loaded], update: int, alive: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, float], list[tuple[str, str, str]]]:
        """Metrics over all ranks, and `(id, reference, hypothesis)` of the watched utterances.

        Args:
            batches: this rank's dev batches.
            update: updates made so far.
            alive: called after every batch.

        Raises:
            InputError: an utterance of the dev set cannot be read.
        """
        zeros = [0.0] * len(self.terms)
        totals = _Totals(zeros, list(zeros), [[0.0] * 4 for _ in self.outputs])
        samples: list[tuple[str, str, str]] = []
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            for loaded in batches:
                if loaded.bad:
                    utterance, reason, detail = loaded.bad[0]
                    raise InputError(
                        f"dev utterance {utterance}: {reason}: {detail}; nothing may be left out of a dev set"
                    )
                self._add(loaded.batch.to(self.ranks.device), update, totals, samples)
                alive()
        self.model.train(training)
        metrics = self._metrics(self.ranks.sum(totals.vector()))
        return metrics, sorted(row for rows in self.ranks.gather(samples) for row in rows)

    def _add(self, batch: Batch, update: int, totals: _Totals, samples: list) -> None:
        spoken = all(name in batch for name in self.model.inputs)
        heads = self.model.encode(batch) if spoken else {}
        losses = self._losses(batch, heads, update)
        for k, term in enumerate(self.terms):
            if term in losses:
                totals.losses[k] += float(losses[term][0])
                totals.counts[k] += losses[term][1]
        if self.tokenizer is not None and ("ctc" in heads or (heads and hasattr(self.model, "recognise"))):
            self._recognise(batch, heads, totals, samples)

    def _losses(self, batch: Batch, heads: dict, update: int) -> dict[str, tuple[Tensor, int]]:
        if self.terms == ["ctc"] and "ctc" in heads:  # the same value without a second forward pass
            tokens = batch["tokens"]
            value = ctc_loss(*heads["ctc"], tokens.values, tokens.lengths).sum()
            return {"ctc": (value, self.model.counts(batch)["ctc"])}
        return self.model.loss(batch, update)

    def _recognise(self, batch: Batch, heads: dict, totals: _Totals, samples: list) -> None:
        from kaldialign import edit_distance

        blank = self.tokenizer.blank
        if "ctc" in heads:
            log_probs, lengths = heads["ctc"]
            inside = torch.arange(log_probs.shape[1], device=lengths.device) < lengths[:, None]
            totals.frames[BLANKS] += int(((log_probs.argmax(-1) == blank) & inside).sum())
            totals.frames[FRAMES] += int(lengths.sum())
        if hasattr(self.model, "recognise"):
            found = self.model.recognise(heads)
        else:
            found = {"": [self.tokenizer.decode(ids) for ids in ctc_greedy(*heads["ctc"], blank)]}
        for output, errors in zip(self.outputs, totals.errors):
            for utterance, hypothesis in zip(batch.ids, found[output]):
                reference = self.texts(utterance)
                errors[WORD_ERRORS] += edit_distance(reference.split(), hypothesis.split())["total"]
                errors[WORDS] += len(reference.split())
                errors[CHARACTER_ERRORS] += edit_distance(list(reference), list(hypothesis))["total"]
                errors[CHARACTERS] += len(reference)
                if not output and utterance in self.watch:
                    samples.append((utterance, reference, hypothesis))

    def _metrics(self, vector: list[float]) -> dict[str, float]:
        size = len(self.terms)
        losses, counts, (blanks, frames), rows = (
            vector[:size],
            vector[size : 2 * size],
            vector[2 * size : 2 * size + 2],
            vector[2 * size + 2 :],
        )
        values = {term: loss / max(1, n) for term, loss, n in zip(self.terms, losses, counts)}
        metrics = columns(values, self.model.weights)
        if hasattr(self.model, "derive"):
            metrics |= self.model.derive(values)
        if not any(rows):
            return metrics
        for k, output in enumerate(self.outputs):
            errors, suffix = rows[4 * k : 4 * k + 4], f"_{output}" if output else ""
            metrics[f"wer{suffix}"] = 100 * errors[WORD_ERRORS] / max(1, errors[WORDS])
            metrics[f"cer{suffix}"] = 100 * errors[CHARACTER_ERRORS] / max(1, errors[CHARACTERS])
        return {**metrics, "blank_ratio": blanks / frames} if frames else metrics
