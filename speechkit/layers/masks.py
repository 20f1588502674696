"""Lengths to masks, and padded to packed: the one place where padding is dealt with.

Inside an encoder the frames of a batch are *packed*: `(N, D)`, the valid frames of all utterances
one after the other. Whatever works frame by frame then neither spends time on padding nor sees it;
only attention and convolutions need to know where an utterance ends.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property

import torch
from torch import Tensor


def padding_mask(lengths: Tensor, width: int | None = None) -> Tensor:
    """True at padding.

    Args:
        lengths: `(B,)` valid frames.
        width: number of columns; the longest length when None.

    Returns:
        `(B, width)` bool.
    """
    width = int(lengths.max()) if width is None else width
    return torch.arange(width, device=lengths.device) >= lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """A copy of `(B, T, ...)` with zeros beyond each length, whatever was there (NaN included)."""
    mask = padding_mask(lengths, x.size(1))
    return x.masked_fill(mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0)


class Packing:
    """Where each utterance lies in a packed `(N, D)` tensor.

    Args:
        lengths: `(B,)` valid frames of each utterance; 0 is allowed.

    Attributes:
        lengths: as given, on their device.
        sizes: the same as Python integers (one transfer from the device a forward pass).
        width: frames of the longest utterance.
        total: N, frames of all utterances.
    """

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths
        self.sizes: list[int] = lengths.tolist()
        self.width = max(self.sizes, default=0)
        self.total = sum(self.sizes)
        self.regular = self.total == self.width * len(self.sizes)
        """No padding at all: packing is a change of shape."""

    def to(self, device: torch.device) -> Packing:
        """The same on a device, with indices made here: nothing has to be waited for and brought back."""
        if self.lengths.device == device:
            return self
        moved = copy(self)
        moved.lengths, moved.index = self.lengths.to(device), self.index.to(device)
        for name in ("positions", "utterance", "offsets"):
            moved.__dict__.pop(name, None)
        return moved

    @cached_property
    def index(self) -> Tensor:
        """`(N,)` place of every packed frame among the `B * width` padded ones."""
        return (~padding_mask(self.lengths, self.width)).flatten().nonzero().squeeze(1)

    @cached_property
    def positions(self) -> Tensor:
        """`(N,)` number of every packed frame within its utterance, from 0."""
        return self.index % max(self.width, 1)

    @cached_property
    def utterance(self) -> Tensor:
        """`(N,)` which utterance a packed frame belongs to."""
        return self.index // max(self.width, 1)

    @cached_property
    def offsets(self) -> Tensor:
        """`(B + 1,)` int32 starts of the utterances and N, as variable-length kernels want them."""
        ends = self.lengths.cumsum(0, dtype=torch.int32)
        return torch.cat([ends.new_zeros(1), ends])

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """`(utterances, frames)` of each run of neighbours of equal length: one dense batch each."""
        runs: list[list[int]] = []
        for size in self.sizes:
            if runs and runs[-1][1] == size:
                runs[-1][0] += 1
            else:
                runs.append([1, size])
        return [(count, size) for count, size in runs if size > 0]

    def pack(self, x: Tensor) -> Tensor:
        """`(B, T, ...)` with T >= width to `(N, ...)`."""
        x = x[:, : self.width]
        if self.regular:
            return x.flatten(0, 1)
        return x.flatten(0, 1).index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """`(N, ...)` to `(B, width, ...)` with zeros at padding."""
        shape = (len(self.sizes), self.width, *x.shape[1:])
        if self.regular:
            return x.reshape(shape)
        return x.new_zeros(shape[0] * shape[1], *x.shape[1:]).index_copy(0, self.index, x).view(shape)
