"""Time derivatives of features: regression over neighbouring frames."""

from __future__ import annotations

import numpy as np

REACH = 2  # frames on each side: the usual window of five


def add_deltas(features: np.ndarray, order: int, reach: int = REACH) -> np.ndarray:
    """Appends derivatives up to an order; beyond the ends the first and the last frame are repeated.

    Source: Young et al., "The HTK Book" (3.4), Eq. 5.16:
    `d_t = sum_n n (x_{t+n} - x_{t-n}) / (2 sum_n n^2)`, n = 1 ... reach. The second derivative is the
    first of the first, its ends repeated in turn; Kaldi, which takes it from the features in one step, gives
    the same except within `2 * reach` frames of the ends.

    Args:
        features: `(T, F)` float32.
        order: 0 none, 1 first derivatives, 2 second ones too.
        reach: frames on each side.

    Returns:
        `(T, F * (1 + order))` float32.
    """
    parts = [features]
    for _ in range(order if len(features) else 0):
        parts.append(_deltas(parts[-1], reach))
    return np.concatenate(parts, axis=1) if len(features) else np.tile(features, (1, 1 + order))


def _deltas(x: np.ndarray, reach: int) -> np.ndarray:
    padded = np.pad(x, ((reach, reach), (0, 0)), mode="edge")
    frames = len(x)
    total = np.zeros_like(x)
    for n in range(1, reach + 1):
        total += n * (padded[reach + n : reach + n + frames] - padded[reach - n : reach - n + frames])
    return total / np.float32(2 * sum(n * n for n in range(1, reach + 1)))
