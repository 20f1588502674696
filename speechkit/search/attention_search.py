"""The work of `speechkit.search.attention_beam`, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.search.ctc_prefix import NEVER, CtcPrefix
from speechkit.search.hypothesis import Hypothesis

if TYPE_CHECKING:
    from speechkit.search.attention_beam import AttentionBeam, AttentionBeamConfig, Steps

CARRIED = 0.75
"""While more than this share of utterances is searched, what is over is carried along: moving costs more."""


class _Table(NamedTuple):
    """What may follow N hypotheses, `(N, C + 1)`: C tokens, and <eos> in the last column.

    Attributes:
        tokens: ids.
        other: all of the score but CTC's, with the hypothesis's own.
        extra: of it, language models and bonus.
        ctc: log probability under CTC; zeros without it.
        states: of the n-gram model.
    """

    tokens: Tensor
    other: Tensor
    extra: Tensor
    ctc: Tensor
    states: np.ndarray


class _Utterance:
    """What has ended of an utterance, and how long hypotheses may be."""

    def __init__(self, config: AttentionBeamConfig, frames: int) -> None:
        self.config, self.ended, self.bests = config, [], {}
        ratios = config.minlenratio, config.maxlenratio or 1.0
        shortest, longest = (int(-ratio if ratio < 0 else ratio * frames) for ratio in ratios)
        self.shortest, self.longest = shortest, max(1, longest) if frames else 0
        if not frames:
            self.ended.append(Hypothesis([], [], 0.0, 0.0, 0.0))

    def add(self, hypothesis: Hypothesis) -> None:
        """Keeps one that has ended."""
        self.ended.append(hypothesis)
        size = len(hypothesis.tokens)
        self.bests[size] = max(self.bests.get(size, NEVER), hypothesis.score)

    def over(self, place: int) -> bool:
        """Whether, after so many tokens, nothing better is to be expected (Watanabe et al., equation 50).

        The lengths that are looked at are those of ESPnet: two less than the tokens that were read.
        """
        if self.config.maxlenratio or not self.bests:
            return False
        hopeless = max(self.bests.values()) - self.config.end_margin
        sizes = range(place - 2, place - 2 - self.config.end_span, -1)
        return all(self.bests.get(size, hopeless) < hopeless for size in sizes)

    def nbest(self) -> list[Hypothesis]:
        """The best of what has ended."""
        per_token = self.config.normalise
        order = sorted(self.ended, key=lambda h: -h.score / (len(h.tokens) + 1 if per_token else 1))
        return order[: self.config.nbest]


class Search:
    """One search. The rows of all tensors are hypotheses; those of an utterance are neighbours.

    Args:
        beam: the options, ids and language model.
        networks: each with its weight.
        lengths: `(B,)` frames.
        log_probs: `(B, T, V)` of CTC, or None.
    """

    def __init__(
        self,
        beam: AttentionBeam,
        networks: Sequence[tuple[Steps, float]],
        lengths: Tensor,
        log_probs: Tensor | None,
    ) -> None:
        self.beam, self.config, self.networks = beam, beam.config, networks
        self.all = [_Utterance(beam.config, frames) for frames in lengths.tolist()]
        heard = [i for i, utterance in enumerate(self.all) if utterance.longest]
        self.rows = torch.tensor(heard, dtype=torch.int64, device=lengths.device)
        self.searched, self.prefix = self.all, None
        if log_probs is not None and self.config.ctc_weight and heard:
            self.prefix = CtcPrefix(log_probs[self.rows], lengths[self.rows], beam.blank)
        self.last = torch.full_like(self.rows, beam.eos)
        self.tokens = self.last[:, None][:, :0]
        self.other = self.extra = torch.zeros(len(heard), device=lengths.device)
        self.states = np.full(len(heard), beam.lm.start if beam.lm is not None else 0)
        self._keep(heard, [network for network, _ in networks])

    def run(self) -> list[list[Hypothesis]]:
        """Searches to the end."""
        place = 0
        while self.searched:
            self._step(place)
            place += 1
        return [u.nbest() for u in self.all]

    def _keep(self, places: list[int], parts: Sequence[Steps | CtcPrefix]) -> None:
        """Leaves out all utterances but these."""
        if len(places) < len(self.searched):
            self.searched = [self.searched[i] for i in places]
            for part in parts if places else ():
                part.keep(torch.tensor(places, device=self.rows.device))

    # ---- one token --------------------------------------------------------------------------------------

    def _step(self, place: int) -> None:
        """Scores what may follow, keeps the best, and collects what has ended."""
        table = self._table(place)
        columns, count = table.tokens.size(1), len(self.searched)
        scores = (table.other + self.config.ctc_weight * table.ctc).view(count, -1)
        best, index = scores.topk(min(self.config.beam, scores.size(1)))
        self._refuse_nan(best)
        flat = index + scores.size(1) * torch.arange(count, device=index.device)[:, None]
        ends = index % columns == columns - 1
        last = torch.tensor([[u.longest - 1 <= place] for u in self.searched], device=ends.device)
        possible = best > NEVER
        self._collect(table, flat, best, ends, (ends | last) & possible)
        goes_on = possible & ~ends & ~last
        alive = [
            on and not utterance.over(place) for utterance, on in zip(self.searched, goes_on.any(1).tolist())
        ]
        left = [i for i, on in enumerate(alive) if on]
        if len(left) > CARRIED * count:
            goes_on &= torch.tensor(alive, device=goes_on.device)[:, None]
            left = list(range(count))
        self._choose(table, flat[left].flatten(), goes_on[left].flatten())
        networks = [network for network, _ in self.networks]
        self._keep(left, networks + ([self.prefix] if self.prefix is not None else []))

    def _refuse_nan(self, best: Tensor) -> None:
        if (wrong := best.isnan().any(1).nonzero()).numel():
            utterance = self.all.index(self.searched[int(wrong[0])])
            raise InputError(
                f"attention_beam: scores of utterance {utterance} of the batch are NaN; look at its features "
                "and at the losses of the model's training"
            )

    def _table(self, place: int) -> _Table:
        config, eos = self.config, self.beam.eos
        parts = [weight * network(self.last, self.rows) for network, weight in self.networks]
        full = sum(parts)
        full[:, self.beam.forbidden] = NEVER
        partial = self.prefix is not None or self.beam.lm is not None
        size = int(config.prebeam * config.beam) if partial else config.beam
        values, tokens = full.topk(min(size, full.size(1)))
        values = values.masked_fill(tokens == eos, NEVER)
        ending = full[:, eos].clone()
        width = len(self.rows) // len(self.searched)
        if early := [i for i, u in enumerate(self.searched) if place < u.shortest]:
            ending.view(-1, width)[early] = NEVER
        extra, states = self._language(tokens)
        extra = extra.to(full) + config.length_bonus
        ctc = torch.zeros_like(extra)
        if self.prefix is not None:
            begun, whole = self.prefix.score(tokens)
            ctc = torch.cat([begun, whole[:, None]], 1)
        gains = torch.cat([values, ending[:, None]], 1) + extra
        tokens = torch.cat([tokens, torch.full_like(tokens[:, :1], eos)], 1)
        extra = sum((part.gather(1, tokens) for part in parts[1:]), start=extra)
        return _Table(tokens, self.other[:, None] + gains, self.extra[:, None] + extra, ctc, states)

    def _language(self, tokens: Tensor) -> tuple[Tensor, np.ndarray]:
        """Scores `(N, C + 1)` of the n-gram model for `(N, C)` tokens and <eos>, and the states after."""
        states = self.states[:, None].repeat(tokens.size(1) + 1, 1)
        if self.beam.lm is None:
            return torch.zeros(states.shape), states
        before = np.ascontiguousarray(states[:, 1:])
        scores, after = self.beam.lm.score(before.ravel(), tokens.cpu().numpy().ravel())
        states[:, :-1] = after.reshape(before.shape)
        ending = self.beam.lm.finish(self.states)
        return torch.from_numpy(np.column_stack([scores.reshape(before.shape), ending])), states

    def _collect(self, table: _Table, flat: Tensor, best: Tensor, ends: Tensor, done: Tensor) -> None:
        """Hands over hypotheses that have ended, or may not get longer."""
        owners = done.nonzero()[:, 0].tolist()
        if not owners:
            return
        places = flat[done]
        before = self.tokens.index_select(0, places // table.tokens.size(1))
        tokens = torch.cat([before, table.tokens.take(places)[:, None]], 1).tolist()
        columns = best[done], table.ctc.take(places), table.extra.take(places), ends[done]
        for owner, said, score, ctc, extra, end in zip(owners, tokens, *(c.tolist() for c in columns)):
            said = said[:-1] if end else said
            self.searched[owner].add(Hypothesis(said, [], score, ctc, extra, complete=end))

    def _choose(self, table: _Table, flat: Tensor, goes_on: Tensor) -> None:
        """Goes on with these `(M,)` places of the table; of those that do not go on nothing will come."""
        self.rows, self.last = flat // table.tokens.size(1), table.tokens.take(flat)
        self.tokens = torch.cat([self.tokens.index_select(0, self.rows), self.last[:, None]], 1)
        self.other, self.extra = table.other.take(flat).masked_fill(~goes_on, NEVER), table.extra.take(flat)
        self.states = table.states.ravel().take(flat.cpu().numpy())
        if self.prefix is not None and len(flat):
            self.prefix.extend(self.rows, self.last)
