"""A fixed map from whole numbers to whole numbers that looks up a whole array at once."""

from __future__ import annotations

import numpy as np

_EMPTY = -1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth's multiplicative hashing


class IntMap:
    """Open addressing with linear probing, at most half full.

    Args:
        keys: `(N,)` int64, distinct and not negative.
        values: `(N,)` integers, not negative.
    """

    def __init__(self, keys: np.ndarray, values: np.ndarray) -> None:
        keys = np.ascontiguousarray(keys, dtype=np.int64)
        bits = max(4, int(2 * len(keys)).bit_length())
        self._shift, self._mask = np.uint64(64 - bits), (1 << bits) - 1
        # Key and value side by side: a hit costs one line of the cache.
        self._table = np.full((1 << bits, 2), _EMPTY, dtype=np.int64)
        slot, todo = self._slots(keys), np.arange(len(keys))
        while todo.size:
            free = self._table[slot[todo], 0] == _EMPTY
            self._table[slot[todo[free]], 0] = keys[todo[free]]
            placed = self._table[slot[todo], 0] == keys[todo]
            self._table[slot[todo[placed]], 1] = values[todo[placed]]
            todo = todo[~placed]
            slot[todo] = (slot[todo] + 1) & self._mask

    def _slots(self, keys: np.ndarray) -> np.ndarray:
        return ((keys.view(np.uint64) * _GOLDEN) >> self._shift).view(np.int64)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Values of `(N,)` int64 keys, -1 for those that are not in the map."""
        slot = self._slots(np.ascontiguousarray(keys, dtype=np.int64))
        rows = self._table.take(slot, axis=0)
        values = np.where(rows[:, 0] == keys, rows[:, 1], -1)
        todo = np.flatnonzero((rows[:, 0] != keys) & (rows[:, 0] != _EMPTY))
        while todo.size:
            slot[todo] = (slot[todo] + 1) & self._mask
            rows, wanted = self._table.take(slot[todo], axis=0), keys[todo]
            hit = rows[:, 0] == wanted
            values[todo[hit]] = rows[hit, 1]
            todo = todo[~hit & (rows[:, 0] != _EMPTY)]
        return values
