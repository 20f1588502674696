"""Progressive masks over audio and video tokens: spans that get longer and more frequent while a run goes on.

A row is a pure function of its key, a salt, its length, and the stage of the schedule; the schedule is a pure
function of the update. So a resumed run masks what it would have masked without the stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.hashing import mix, uniform


@dataclass
class Config:
    """How much is masked when."""

    stage_updates: int = 10000
    """Updates of a stage: in each the probability rises, after each the spans get longer."""

    width_step: Literal[2, 1] = 2
    """Tokens by which a span grows from one stage to the next; it begins with one. Spans of even width have
    one token more to the right of their centre."""

    max_width: int = 11
    """Tokens of a span in the last stage."""

    first_probability: float = 0.15
    """At the beginning of every stage."""

    last_probability: float = 0.45
    """At the end of every stage, and for good after the last one."""

    p_schedule: Literal["exp", "linear", "saturating"] = "exp"
    """How the probability rises within a stage: by a constant factor, by a constant amount, or fast at
    first."""

    prob_semantics: Literal["center", "coverage"] = "center"
    """What the probability is of: that a token is the centre of a span, as published, which with wide spans
    hides nearly everything; or that it is hidden."""

    max_coverage: float = 1.0
    """Largest share of the tokens of a modality that is hidden: centres are taken back, at random, until it
    is met. At least one token stays visible, and one of two or more is hidden, whatever this says."""

    mask_axis: Literal["sequence", "time", "tube"] = "sequence"
    """Along what spans of video run: the flattened sequence, as published; time, over whole slices; or time,
    each patch by itself. Audio has only one axis."""

    valid_width: int = 3
    """Tokens of a span in validation."""

    valid_probability: float = 0.15
    """Probability in validation."""

    def __post_init__(self) -> None:
        for name in ("stage_updates", "max_width", "valid_width"):
            check_range(name, getattr(self, name), 1)
        for name in ("first_probability", "last_probability", "valid_probability"):
            check_range(name, getattr(self, name), 1e-6, 1)
        check_range("max_coverage", self.max_coverage, 0, 1)
        if self.first_probability > self.last_probability:
            raise ValueError("first_probability must not be above last_probability")


class Stage(NamedTuple):
    """What the schedule says at an update.

    Attributes:
        width: tokens of a span.
        probability: see `Config.prob_semantics`.
    """

    width: int
    probability: float

    def centre_probability(self, semantics: str) -> float:
        """That a token is a centre. Of w tokens that could hide one, none does so with (1 - p)^w."""
        if semantics == "center":
            return self.probability
        return 1 - (1 - self.probability) ** (1 / self.width)


def stage(config: Config, update: int) -> Stage:
    """Width and probability at an update, counted from 0.

    With the defaults the width is 1, 3, 5, 7, 9, 11 from updates 0, 10000, ..., 50000 on, and in each of
    these stages `p(s) = 0.15 * 3^(s / 10000)` after s updates; (11, 0.45) from update 60000 on.
    """
    number, passed = divmod(update, config.stage_updates)
    first, last = config.first_probability, config.last_probability
    if number > math.ceil((config.max_width - 1) / config.width_step):
        return Stage(config.max_width, last)
    part = passed / config.stage_updates
    probability = {
        "exp": first * (last / first) ** part,
        "linear": first + (last - first) * part,
        "saturating": last - (last - first) * math.exp(-5 * part),
    }[config.p_schedule]
    return Stage(min(1 + config.width_step * number, config.max_width), probability)


def validation_stage(config: Config) -> Stage:
    """The same at every validation, so that its numbers can be compared."""
    return Stage(config.valid_width, config.valid_probability)


def draw_mask(slices: Tensor, patches: int, now: Stage, config: Config, keys: Tensor, salt: int) -> Tensor:
    """Draws which tokens of one modality are hidden.

    Args:
        slices: `(B,)` slices in time: tokens of audio.
        patches: tokens of a slice, neighbours in the sequence: 1 for audio.
        now: width and probability.
        config: the guards and the axis.
        keys: `(B,)` int64 on the CPU, see `speechkit.data.batch.Batch`.
        salt: keeps draws for different purposes apart.

    Returns:
        `(B, max slices * patches)` bool on the CPU, True at hidden tokens, never at padding.
    """
    sizes, lanes = slices.cpu().numpy(), 1
    if config.mask_axis == "sequence":
        sizes = sizes * patches
    elif config.mask_axis == "tube":
        lanes = patches
    hidden = _spans(sizes, lanes, now, config, mix(keys.cpu().numpy(), salt))
    if config.mask_axis == "time":
        hidden = hidden.repeat(patches, axis=2)
    return torch.from_numpy(hidden.reshape(len(hidden), -1))


def _spans(sizes: np.ndarray, lanes: int, now: Stage, config: Config, seeds: np.ndarray) -> np.ndarray:
    """`(B, L, lanes)` bool: spans along the second axis, in each lane by itself, within the sizes."""
    longest = int(sizes.max(initial=0))
    places = np.arange(longest * lanes).reshape(longest, lanes)
    valid = np.arange(longest)[None, :, None] < sizes[:, None, None]
    draws = np.where(valid, uniform(seeds[:, None, None], places), 2.0)
    limits = np.full(len(sizes), now.centre_probability(config.prob_semantics))
    hidden = _around(draws, limits, now.width) & valid
    totals = sizes * lanes
    most = np.minimum(np.floor(config.max_coverage * totals + 1e-9), totals - 1).clip(min=0)
    rows = np.flatnonzero(hidden.sum((1, 2)) > most)
    if len(rows):
        lower = _lower_limits(draws[rows], limits[rows], now.width, valid[rows], most[rows])
        hidden[rows] = _around(draws[rows], lower, now.width) & valid[rows]
    rows = np.flatnonzero((hidden.sum((1, 2)) == 0) & (totals > 1))
    flat = hidden.reshape(len(hidden), -1)
    if len(rows):
        flat[rows, draws.reshape(len(draws), -1)[rows].argmin(1)] = True
    return flat.reshape(hidden.shape)


def _around(draws: np.ndarray, limits: np.ndarray, width: int) -> np.ndarray:
    """True within a span whose centre drew less than the limit of its row."""
    before, after = (width - 1) // 2, width // 2
    counts = (draws < limits[:, None, None]).cumsum(1)
    counts = np.concatenate([np.zeros_like(counts[:, :1]), counts], axis=1)  # centres before each place
    places, length = np.arange(draws.shape[1]), draws.shape[1]
    ends, starts = np.minimum(places + before + 1, length), np.maximum(places - after, 0)
    return counts[:, ends] > counts[:, starts]


def _lower_limits(
    draws: np.ndarray, limits: np.ndarray, width: int, valid: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """`(R,)` the highest limit of each row, at a draw of its own, with at most `most` hidden tokens.

    Fewer centres never hide more, so the number of centres that may stay is found by bisection.
    """
    order = np.sort(draws.reshape(len(draws), -1), axis=1)
    rows = np.arange(len(draws))
    fits, fails = np.zeros(len(draws), int), (order < limits[:, None]).sum(1)
    while (fails - fits > 1).any():
        middle = (fits + fails) // 2
        hidden = _around(draws, order[rows, middle], width) & valid
        good = hidden.sum((1, 2)) <= most
        fits, fails = np.where(good, middle, fits), np.where(good, fails, middle)
    return order[rows, fits]
