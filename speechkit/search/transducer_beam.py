"""Transducer beam search in step with the frames, batched over utterances, with language-model fusion.

Source: Saon et al. (2020), "Alignment-Length Synchronous Decoding for RNN Transducer", section 3 (time
synchronous decoding): in each frame every hypothesis may put out up to S labels before its blank; hypotheses
that read alike after the blank are joined, and their probabilities added. When each label came is that of
the most probable of the paths that were joined.
With `topology: one` a label ends the frame too, so that each frame gives one symbol (Kang et al., 2022,
"Fast and parallel decoding for transducer", modified beam search): faster, and not what was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.lm.neural import NeuralLm
from speechkit.lm.ngram import NgramLM
from speechkit.search.beam_fusion import Fusion
from speechkit.search.greedy import Span
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.transducer_networks import Networks
from speechkit.search.transducer_pool import Pool
from speechkit.search.transducer_state import NEVER, Beam, join

MULTIPLIER = 0x5851F42D4C957F2D  # of Knuth's MMIX generator: prefixes are told apart by 64-bit hashes


@dataclass
class TransducerBeamConfig:
    """Options of the transducer beam search; scores are natural logarithms."""

    beam: int = 10
    """Hypotheses kept for each utterance."""
    max_symbols: int = 3
    """S: labels in one frame, at most."""
    topology: Literal["exact", "one"] = "exact"
    """`one`: each frame gives a label or a blank, never both."""
    beam_threshold: float = 10.0
    """Labels that make a hypothesis worse than the frame's best by more than this are not tried."""
    lm_weight: float = 0.3
    """Factor of the language model's natural log probability of tokens."""
    token_bonus: float = 0.0
    """Added for every token, against deletions. There is no penalty of the blank: each path has one blank a
    frame, so that it would change nothing; with `topology: one` it has as many as frames less labels, so that
    it would be this bonus."""
    unk_score: float = -10.0
    """Added for tokens that an n-gram model does not know."""
    nbest: int = 1
    """Hypotheses returned for each utterance, at most."""

    def __post_init__(self) -> None:
        check_range("beam", self.beam, 1)
        check_range("max_symbols", self.max_symbols, 1)
        check_range("beam_threshold", self.beam_threshold, 0)
        check_range("lm_weight", self.lm_weight, 0)
        check_range("nbest", self.nbest, 1, self.beam)


class TransducerBeam:
    """A beam search that is ready to run; calling it decodes a batch.

    Args:
        config: see `TransducerBeamConfig`.
        vocab: token of every id.
        lm: n-gram model of tokens, or None.
        blank: id of the blank.
        forbidden: ids that are never put out.
        neural: neural language model of tokens, or None.
    """

    def __init__(
        self,
        config: TransducerBeamConfig,
        vocab: list[str],
        lm: NgramLM | None = None,
        blank: int = 0,
        forbidden: tuple[int, ...] = (),
        neural: NeuralLm | None = None,
    ) -> None:
        self.config, self.vocab, self.blank, self.forbidden = config, vocab, blank, list(forbidden)
        self.neural = neural
        options = (config.lm_weight, config.token_bonus, config.unk_score)
        self.fusion = Fusion(lm, vocab, *options, end=True)

    @torch.no_grad()
    def __call__(self, networks: Networks, frames: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Decodes a batch.

        Args:
            networks: of the transducer.
            frames: `(B, T, J)` projected.
            lengths: `(B,)`.

        Returns:
            N-best hypotheses of each utterance, best first, with the frame in which each label came.

        Raises:
            InputError: a score is NaN.
        """
        order = torch.argsort(lengths, descending=True, stable=True)
        lengths = lengths.cpu()[order.cpu()]
        run, done = _Run(self, networks, frames[order]), len(lengths)
        results: list[list[Hypothesis]] = [[] for _ in lengths]
        for time in range(frames.size(1) + 1):
            running = int((lengths > time).sum())
            for row in range(running, done):
                results[int(order[row])] = run.finish(row)
            done = running
            if not running:
                break
            if wrong := run.frame(time, running).nonzero()[:, 0].tolist():
                raise InputError(
                    f"transducer_beam: scores of utterance {int(order[wrong[0]])} of the batch are NaN; look "
                    "at its features and at the losses of the model's training"
                )
        return results


class _Run:
    """The search over one batch, longest utterances first, so that those that go on are the first rows."""

    def __init__(self, search: TransducerBeam, networks: Networks, frames: Tensor) -> None:
        self.search, self.config, self.networks, self.frames = search, search.config, networks, frames
        batch, width, device = len(frames), search.config.beam, frames.device
        self.pool = Pool(networks, search.neural, search.config.lm_weight)
        self.labels: list[tuple[int, int, int]] = []  # the node before, the token, its frame
        model = torch.full((batch, width), NEVER, dtype=torch.float64, device=device)
        model[:, 0] = 0
        whole = torch.zeros(batch, width, dtype=torch.int64, device=device)
        lm_state = torch.full_like(whole, search.fusion.start)
        self.beam = Beam(model, model, torch.zeros_like(model), whole, whole - 1, lm_state, whole)

    def frame(self, time: int, running: int) -> Tensor:
        """Goes through a frame with the first utterances; `(running,)` whether scores are NaN."""
        current, frame, pool = self.beam.rows(running), self.frames[:running, time], len(self.pool)
        closed: list[Beam] = []
        one = self.config.topology == "one"
        for step in range(self.config.max_symbols + 1):
            alive = current.model > NEVER
            utterances = alive.nonzero()[:, 0]
            log_probs = self.networks.score(frame[utterances], self.pool.states[current.place[alive]])
            silence = torch.zeros_like(current.model)
            silence[alive] = log_probs[:, self.search.blank].double()
            scores = {"model": current.model + silence, "path": current.path + silence}
            closed.append(Beam(**{**vars(current), **scores}))
            if step == self.config.max_symbols:
                break
            longer = self._extend(current, alive, log_probs, self._least(closed, step), time)
            if longer is None:
                break
            current = longer
            if one:
                closed.append(longer)
                break
        beam = join(closed, self.config.beam) if len(closed) > 1 else closed[0]
        if len(self.pool) > pool:
            beam.place = self.pool.shrink(beam.place)
        self.beam = beam
        return closed[0].model.isnan().any(1)

    def _least(self, closed: list[Beam], step: int) -> tuple[Tensor, Tensor]:
        """Totals `(B, 1)` from which one more label is tried, after so many in this frame.

        The first is for labels that lead to a hypothesis of the beam, whose probability grows by it; the
        second for others: one that is worse than all that were there before the frame will not be among the
        best, as labels and blanks only cost, but for what the bonus may still give.
        """
        config = self.config
        best = torch.stack([part.total.amax(1) for part in closed]).amax(0) - config.beam_threshold
        hope = max(0.0, config.token_bonus) * (config.max_symbols - step - 1)
        return best[:, None], torch.maximum(best, closed[0].total.amin(1) - hope)[:, None]

    def _extend(
        self, current: Beam, alive: Tensor, log_probs: Tensor, least: tuple[Tensor, Tensor], time: int
    ) -> Beam | None:
        """The best hypotheses with one label more, if any is good enough.

        Args:
            current: `(B, W)`.
            alive: `(B, W)` bool, which there are: N.
            log_probs: `(N, V)`.
            least: totals that are good enough, see `_least`.
            time: the frame.
        """
        search, width = self.search, self.config.beam
        never = torch.tensor([search.blank, *search.forbidden], device=log_probs.device)
        log_probs = log_probs.index_fill(1, never, NEVER)
        count = min(width, log_probs.size(1))
        top, tokens = log_probs.topk(count)
        before = current.lm_state[alive][:, None].expand(-1, count)
        gained, lm_state = self._language(before, tokens)
        gained = gained + self.pool.expected(current.place[alive], tokens)
        model = self._spread(alive, current.model[alive][:, None] + top.double(), NEVER)
        path = self._spread(alive, current.path[alive][:, None] + top.double(), NEVER)
        extra = self._spread(alive, current.extra[alive][:, None] + gained, 0.0)
        total, index = (model + extra).topk(width)
        token = self._spread(alive, tokens, 0).gather(1, index)
        parent = current.take(index // count)
        prefix = parent.prefix * MULTIPLIER + token + 1
        known, place = self._known(prefix, parent.place)
        good = (total > torch.where(known, *least)) & (total > NEVER)
        if not good.any():
            return None
        if (new := good & ~known).any():
            place[new] = self.pool.grow(place[new], token[new])
        return Beam(
            model.gather(1, index).where(good, NEVER),
            path.gather(1, index),
            extra.gather(1, index),
            prefix,
            self._note(parent.node, token, good, time),
            self._spread(alive, lm_state, 0).gather(1, index),
            place,
        )

    def _known(self, prefix: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Which were in the beam before this frame, and the places of these in the pool, else those given."""
        before = self.beam.rows(len(prefix))
        same = (prefix[:, :, None] == before.prefix[:, None]) & (before.model > NEVER)[:, None]
        known = same.any(2)
        return known, before.place.gather(1, same.int().argmax(2)).where(known, place)

    def _spread(self, alive: Tensor, values: Tensor, nothing: float) -> Tensor:
        """`(N, K)` values of the hypotheses there are, to `(B, W * K)`."""
        wide = values.new_full((*alive.shape, values.size(1)), nothing)
        wide[alive] = values
        return wide.flatten(1)

    def _language(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted scores of more tokens, and the language model's new states."""
        flat = (x.flatten().cpu().numpy() for x in (states, tokens))
        scores, after = self.search.fusion.score(*flat)
        return (torch.from_numpy(np.asarray(x)).view(tokens.shape).to(tokens.device) for x in (scores, after))

    def _note(self, node: Tensor, token: Tensor, good: Tensor, time: int) -> Tensor:
        """Nodes in the tree of all labels."""
        first = len(self.labels)
        self.labels += [(*pair, time) for pair in zip(node[good].tolist(), token[good].tolist())]
        grown = node.clone()
        grown[good] = torch.arange(first, len(self.labels), device=node.device)
        return grown

    def finish(self, row: int) -> list[Hypothesis]:
        """N-best hypotheses of an utterance that is over."""
        beam, neural = self.beam, self.search.neural
        extra = beam.extra[row].cpu().numpy() + self.search.fusion.finish(beam.lm_state[row].cpu().numpy())
        if neural is not None:
            ends = torch.full_like(beam.place[row], neural.eos)[:, None]
            extra = extra + self.pool.expected(beam.place[row], ends)[:, 0].cpu().numpy()
        model = beam.model[row].cpu().numpy()
        order = np.argsort(-(model + extra), kind="stable")[: self.config.nbest]
        found = []
        for k in order[np.isfinite(model[order])].tolist():
            spans, parts = self._spans(int(beam.node[row, k])), (float(model[k]), float(extra[k]))
            labels = [span.token for span in spans]
            found.append(Hypothesis(labels, [], sum(parts), *parts, spans=spans))
        return found

    def _spans(self, node: int) -> list[Span]:
        """The labels up to a node."""
        spans = []
        while node >= 0:
            node, token, time = self.labels[node]
            spans.append(Span(token, time, time + 1))
        return spans[::-1]
