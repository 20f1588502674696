"""Patches of audio and video to tokens: a linear layer, a vector for the modality, and learned positions.

A linear layer over a flattened patch is a convolution whose kernel and stride are the patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.errors import InputError
from speechkit.layers.masks import Packing


class _Patches(nn.Module):
    """What both modalities share.

    Args:
        values: P of a patch.
        dim: D.
    """

    def __init__(self, values: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.patch = nn.Linear(values, dim)
        self.mask, self.modality = self.table(), self.table()

    def table(self, *sizes: int) -> nn.Parameter:
        """Learned vectors `(*sizes, D)`, of about length 1."""
        return nn.Parameter(torch.randn(*sizes, self.dim) * self.dim**-0.5)

    def embed(self, patches: Tensor, hidden: Tensor | None) -> Tensor:
        """`(N, P)` patches to `(N, D)`; the [MASK] vector stands where `(N,)` `hidden` is True."""
        x = self.patch(patches)
        if hidden is not None:
            x = torch.where(hidden[:, None], self.mask.to(x.dtype), x)
        return x + self.modality


class AudioTokens(_Patches):
    """Tokens of audio, with a position for each.

    Args:
        values: P of a patch.
        dim: D.
        positions: most tokens.
        extend: what happens to longer audio: "error", or "interp", which spreads the table over it.
    """

    def __init__(self, values: int, dim: int, positions: int, extend: str) -> None:
        super().__init__(values, dim)
        self.positions, self.extend = self.table(positions), extend

    def forward(self, patches: Tensor, packing: Packing, hidden: Tensor | None = None) -> Tensor:
        """Embeds.

        Args:
            patches: `(N, P)` packed.
            packing: where the sequences lie, in each of which positions begin at 0.
            hidden: `(N,)` bool, or None.

        Returns:
            `(N, D)`, at least fp32.

        Raises:
            InputError: more tokens than positions, with `extend="error"`.
        """
        return self.embed(patches, hidden) + self._places(packing)

    def _places(self, packing: Packing) -> Tensor:
        size = len(self.positions)
        if packing.width <= size:
            return self.positions.index_select(0, packing.positions)
        if self.extend == "error":
            raise InputError(
                f"audio of {packing.width} tokens, and there are {size} positions; cut it, or set "
                "max_audio (before training), or pos_extend=interp"
            )
        # Of longer sequences only: token t of T lies at t (size - 1) / (T - 1), between two positions.
        last = (packing.lengths - 1).clamp(min=1).index_select(0, packing.utterance)
        dtype = self.positions.dtype
        places = packing.positions.to(dtype) * ((size - 1) / last.to(dtype)).clamp(max=1)
        below = places.floor().long().clamp(max=size - 1)
        pair = (self.positions.index_select(0, at) for at in (below, (below + 1).clamp(max=size - 1)))
        return torch.lerp(*pair, (places - below)[:, None])


class VideoTokens(_Patches):
    """Tokens of video, by slice of time, row and column.

    Args:
        values: P of a patch.
        dim: D.
        grid: slices, rows and columns of the tables of positions.
        factored: the sum of a place in the image and a slice of time (as in TimeSformer), or a table of all.
    """

    def __init__(self, values: int, dim: int, grid: tuple[int, int, int], factored: bool) -> None:
        super().__init__(values, dim)
        self.grid = grid
        slices, rows, columns = grid
        if factored:
            self.places, self.times = self.table(rows * columns), self.table(slices)
        else:
            self.places, self.times = self.table(slices * rows * columns), None

    def forward(
        self,
        patches: Tensor,
        packing: Packing,
        image: tuple[int, int],
        starts: Tensor,
        slices: Tensor,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Embeds.

        An image of another size than that of the tables takes the nearest positions, and so does a clip with
        more slices; a shorter one takes the first ones.

        Args:
            patches: `(N, P)` packed.
            packing: where the clips lie.
            image: rows and columns of an image.
            starts: `(B,)` number of the first slice that is there, in its whole clip.
            slices: `(B,)` slices of the whole clips.
            hidden: `(N,)` bool, or None.

        Returns:
            `(N, D)`, at least fp32.
        """
        rows, columns = image
        time = packing.positions // (rows * columns) + starts.index_select(0, packing.utterance)
        whole = slices.index_select(0, packing.utterance).clamp(min=self.grid[0])
        time = time * self.grid[0] // whole
        row = packing.positions // columns % rows * self.grid[1] // rows
        column = packing.positions % columns * self.grid[2] // columns
        place = row * self.grid[2] + column
        x = self.embed(patches, hidden)
        if self.times is not None:
            return x + self.places.index_select(0, place) + self.times.index_select(0, time)
        return x + self.places.index_select(0, time * (self.grid[1] * self.grid[2]) + place)
