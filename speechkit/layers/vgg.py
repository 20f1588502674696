"""Two blocks of a VGG network as the first stage of an encoder (Hori et al., 2017): padded in, packed out.

Sizes as in ESPnet's `VGG2L`: two convolutions of 64 channels, two of 128, each pair followed by the maximum
over 2 x 2 values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.layers.masks import Packing, padding_mask, zero_padding

CHANNELS = ((1, 64), (64, 64), (64, 128), (128, 128))
"""Into and out of each convolution; maxima are taken after every second one."""


class VggSubsampling(nn.Module):
    """Convolutions that keep time and frequency, and maxima that halve both, twice.

    Beyond an utterance every convolution sees zeros, as it does when the utterance is alone; and no maximum
    is below zero. So an utterance of any length has frames, and padding changes none.

    Args:
        input_dim: F.
        dim: D of a linear layer at the end; None for none, so that D is 128 channels of F / 4 frequencies.
    """

    factor = 4

    def __init__(self, input_dim: int, dim: int | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in CHANNELS)
        self.wide = CHANNELS[-1][1] * -(-input_dim // 4)
        self.out = nn.Linear(self.wide, dim) if dim else nn.Identity()
        self.output_dim = dim or self.wide

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` output frames of inputs with so many frames."""
        return torch.div(lengths + 3, 4, rounding_mode="floor")

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Packing]:
        """`(B, T, F)` to packed `(N, D)` and where its utterances lie."""
        packing = Packing(self.output_lengths(lengths))
        if x.is_cuda:
            return self.out(packing.pack(self._convolve(zero_padding(x, lengths), lengths))), packing
        sizes = lengths.tolist()  # one by one: no padding is computed
        rows = [self._convolve(row[None, :size])[0] for row, size in zip(x, sizes) if size]
        return self.out(torch.cat(rows) if rows else x.new_zeros(0, self.wide)), packing

    def _convolve(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`(B, T, F)` to `(B, T / 4, C F / 4)`, channels outside; without `lengths` there is no padding."""
        x = x[:, None]
        for number, conv in enumerate(self.convs):
            x = conv(x).relu()
            if lengths is not None:
                x = x.masked_fill(padding_mask(lengths, x.size(2))[:, None, :, None], 0)
            if number % 2:
                x = F.max_pool2d(x, 2, ceil_mode=True)
                lengths = None if lengths is None else torch.div(lengths + 1, 2, rounding_mode="floor")
        return x.transpose(1, 2).flatten(2)
