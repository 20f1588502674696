"""Random numbers by counting: hashes of whole numbers, the same on every machine and in any order of use."""

from __future__ import annotations

import numpy as np


def mix(*parts: int | np.ndarray) -> np.ndarray:
    """Hash of whole numbers, elementwise over arrays: the finaliser of splitmix64, chained.

    Args:
        parts: integers or integer arrays that broadcast; order matters.

    Returns:
        uint64 array (0-dimensional when all parts are scalars).
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            value = np.asarray(part).astype(np.uint64)
            state = (state ^ value) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*parts: int | np.ndarray) -> np.ndarray:
    """The same hash as float64 in [0, 1)."""
    return (mix(*parts) >> np.uint64(11)) * 2.0**-53


def seed_of(*parts: int) -> int:
    """Hash of whole numbers as a non-negative 63-bit seed for a generator."""
    return int(mix(*parts) >> np.uint64(1))
