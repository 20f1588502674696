"""One update: exact normalisation over the accumulation window and all ranks, and the non-finite policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn

from speechkit.data.batch import Batch, Padded
from speechkit.errors import InputError
from speechkit.hashing import seed_of
from speechkit.train.distributed import Ranks
from speechkit.train.gradients import FlatGradients


@dataclass
class Outcome:
    """What an update did.

    Attributes:
        counts: normaliser of each loss term over the window and all ranks.
        sums: sum of each loss term over the window and all ranks.
        norm: of the gradient before clipping.
        finite: False when the update was skipped, on all ranks alike.
    """

    counts: list[int]
    sums: list[float]
    norm: float
    finite: bool


class Updater:
    """Forward, backward and optimiser step over the micro-batches of this rank.

    The gradient is that of `sum_k w_k * sum_k / count_k`, with `sum_k` and `count_k` over all micro-batches
    of all ranks; so four small micro-batches equal one big one.

    Args:
        model: a `speechkit.models.Model`.
        optimizer: over the model's parameters.
        ranks: this process and the others.
        terms: names of the loss terms, the same on all ranks.
        seed: of the run; each micro-batch starts from `seed_of(seed, update, global index)`.
        clip: largest gradient norm, 0 for none.
        bf16: run forward passes under bfloat16 autocast.
        ddp: let DistributedDataParallel sum the gradients (outside the promise of exactness).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        terms: Sequence[str],
        seed: int,
        clip: float = 0.0,
        bf16: bool = False,
        ddp: bool = False,
    ) -> None:
        unknown = set(model.weights) - set(terms)
        if unknown:
            raise InputError(
                f"the model weighs loss terms that it does not have: {sorted(unknown)}; has {terms}"
            )
        self.model, self.optimizer, self.ranks, self.terms = model, optimizer, ranks, list(terms)
        self.seed, self.max_norm, self.bf16 = seed, clip, bf16
        self.gradients = FlatGradients(model, len(self.terms))
        self.forward = _LossModule(model)
        self.ddp = None
        if ddp and ranks.world > 1:
            self.ddp = nn.parallel.DistributedDataParallel(self.forward, find_unused_parameters=True)

    def close(self) -> None:
        """Lets go of DistributedDataParallel, as `distributed.finish` needs it; no update after this."""
        self.ddp = None

    def autocast(self) -> AbstractContextManager:
        """bfloat16 autocast when it is on."""
        return torch.autocast(self.ranks.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def counts(self, batches: Sequence[Batch | None]) -> list[int]:
        """Normalisers of this rank's micro-batches, in the order of `terms`."""
        totals = dict.fromkeys(self.terms, 0)
        for batch in batches:
            for name, count in self.model.counts(batch).items() if batch is not None else ():
                totals[name] += count
        return list(totals.values())

    def __call__(self, batches: Sequence[Batch | None], counts: list[int], update: int) -> Outcome:
        """Makes one update.

        Args:
            batches: this rank's micro-batches; None for one of which no utterance could be read.
            counts: the sum of `counts(batches)` over all ranks.
            update: its number, from 0.
        """
        self.model.train()
        self.gradients.reset()
        for i, batch in enumerate(batches):
            torch.manual_seed(seed_of(self.seed, update, self.ranks.rank + i * self.ranks.world))
            if batch is not None:
                self.backward(batch, counts, update, last=i == len(batches) - 1)
        if self.ddp is None:
            self.gradients.reduce(self.ranks)
        else:
            self.gradients.gradient.mul_(self.ranks.world)  # DDP averages, the window sums
            self.ranks.sum_(self.gradients.extra)
        # A NaN or infinity of any rank is in the sums of all ranks, so all of them decide alike.
        norm, *sums = torch.cat([self.gradients.norm()[None], self.gradients.extra]).tolist()
        finite = math.isfinite(norm) and all(map(math.isfinite, sums))
        if finite:
            self.gradients.clip(norm, self.max_norm)
            self.optimizer.step()
        return Outcome(counts, sums, norm, finite)

    def backward(self, batch: Batch, counts: list[int], update: int, last: bool = True) -> None:
        """Adds the gradient of one micro-batch, and its loss sums, to the buffer."""
        wait = self.ddp.no_sync() if self.ddp is not None and not last else nullcontext()
        with wait:
            with self.autocast():
                losses = (self.ddp or self.forward)(batch, update)
            objective = sum(
                weight * losses[name][0].float() / max(1, counts[self.terms.index(name)])
                for name, weight in self.model.weights.items()
                if name in losses
            )
            objective.backward()
        with torch.no_grad():
            for k, name in enumerate(self.terms):
                if name in losses:  # speech and text may have terms of their own
                    self.gradients.extra[k] += losses[name][0].detach().float()

    def blame(self, batches: Sequence[Batch | None], update: int) -> list[dict]:
        """Each utterance whose loss alone is not finite: its id and its loss terms.

        When every one is finite alone, the gradient was not: then the list is empty.
        """
        blamed = []
        for batch in batches:
            for i in range(len(batch) if batch is not None else 0):
                with torch.no_grad(), self.autocast():
                    losses = self.model.loss(take(batch, [i]), update)
                values = {name: float(value) for name, (value, _) in losses.items()}
                if not all(map(math.isfinite, values.values())):
                    blamed.append({"utterance": batch.ids[i], **{k: str(v) for k, v in values.items()}})
        return blamed


class _LossModule(nn.Module):
    """The model with `loss` as its forward, for the wrappers that need one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, update: int) -> dict:
        """The model's loss terms."""
        return self.model.loss(batch, update)


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some utterances of a batch, with padding cut to their own length."""
    index = torch.tensor(rows)
    fields = {}
    for name, padded in batch.fields.items():
        lengths = padded.lengths.index_select(0, index.to(padded.lengths.device))
        values = padded.values.index_select(0, index.to(padded.values.device))
        fields[name] = Padded(values[:, : int(lengths.max())], lengths)
    languages = [batch.languages[i] for i in rows] if batch.languages is not None else None
    return replace(
        batch, ids=[batch.ids[i] for i in rows], keys=batch.keys[index], languages=languages, fields=fields
    )
