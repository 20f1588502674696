"""From the last beams to ranked hypotheses: last words, ends of sentences, equal readings joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechkit.search.beam_state import Beams, mix_hash
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.lexicon import SEPARATOR


def finish(
    beams: Beams, nbest: int, vocab: Sequence[str], words: Sequence[str] | None
) -> list[list[Hypothesis]]:
    """The best hypotheses of every utterance.

    Args:
        beams: after the last frame.
        nbest: how many to return.
        vocab: token of every id.
        words: words of the lexicon, whose readings are then told apart by their words alone; None where
            words are what the tokens spell.
    """
    slot, unit, complete = _endings(beams)
    tokens, units = _trace(beams.history.columns(), beams.entry.take(slot), unit)
    ctc = beams.log_probs().ravel().take(slot)
    rest, state = beams.fused.take(slot), beams.state.take(slot)
    last = np.flatnonzero(unit >= 0)
    if last.size:
        gain, state[last] = beams.fusion.score(state.take(last), unit.take(last))
        rest[last] += gain
    rest = np.where(complete, rest + beams.fusion.finish(state), rest)
    row = slot // beams.beam
    results: list[list[Hypothesis]] = [[] for _ in range(len(beams.exponent))]
    for best, total in _groups(row, units if words is not None else None, ctc, rest):
        if len(results[row[best]]) == nbest:
            continue
        ids = [int(token) for token in tokens[best] if token >= 0]
        said = [words[u] for u in units[best] if u >= 0] if words is not None else _spelt(ids, vocab)
        results[row[best]].append(
            Hypothesis(ids, said, total + float(rest[best]), total, float(rest[best]), bool(complete[best]))
        )
    return results


def _endings(beams: Beams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots that can end here with the unit that the end completes, or -1.

    An utterance without any (it ended inside a word of a closed vocabulary) gets all its slots, marked
    as not complete.
    """
    alive = beams.log_probs().ravel() > -np.inf
    slot, unit = beams.graph.last_units(np.where(alive, beams.node, beams.graph.dead))
    allowed = (unit < 0) | (beams.fusion.extra.take(np.maximum(unit, 0)) > -np.inf)
    slot, unit = slot[allowed], unit[allowed]
    rows = len(beams.exponent)
    ended = np.bincount(slot // beams.beam, minlength=rows) > 0
    rest = np.flatnonzero(alive & ~np.repeat(ended, beams.beam))
    complete = np.append(np.ones(len(slot), dtype=bool), np.zeros(len(rest), dtype=bool))
    return np.append(slot, rest), np.append(unit, np.full(len(rest), -1)), complete


def _trace(columns: np.ndarray, entry: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and units `(N, U)` of N prefixes, -1 in front of shorter ones; `unit` is appended."""
    tokens, units = [], [unit]
    while (entry > 0).any():
        parent, token, done = columns[:, entry]
        tokens.append(token)
        units.append(done)
        entry = np.maximum(parent, 0)
    empty = np.empty((len(entry), 0), dtype=np.int64)
    return (np.stack(tokens[::-1], 1) if tokens else empty), np.stack(units[::-1], 1)


def _groups(
    row: np.ndarray, units: np.ndarray | None, ctc: np.ndarray, rest: np.ndarray
) -> list[tuple[int, float]]:
    """`(index of the best member, joint CTC log probability)`, by descending score."""
    if units is None:
        group = np.arange(len(row))
    else:
        code = mix_hash(np.zeros(len(row), np.uint64), row + 1)
        for column in units.T:
            code = np.where(column >= 0, mix_hash(code, column + 1), code)
        group = np.unique(code, return_inverse=True)[1].reshape(-1)
    joint = np.full(int(group.max(initial=-1)) + 1, -np.inf)
    np.logaddexp.at(joint, group, ctc)
    order = np.argsort(-(ctc + rest), kind="stable")
    best = order[np.unique(group[order], return_index=True)[1]]  # by group number: the first in order
    score = joint + rest[best]
    return [(int(best[g]), float(joint[g])) for g in np.lexsort((best, -score))]


def _spelt(ids: list[int], vocab: Sequence[str]) -> list[str]:
    return "".join(vocab[token] for token in ids).replace(SEPARATOR, " ").split()
