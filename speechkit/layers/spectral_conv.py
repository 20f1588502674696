"""Wide grouped convolutions over time through the Fourier transform of overlapping blocks.

A convolution with K taps takes K products for each pair of channels and output; in blocks of 2 K frames
it takes one complex product for each frequency (overlap-save; Oppenheim and Schafer, "Discrete-Time
Signal Processing", section 8.7.3). For the 128 taps of wav2vec 2.0 that is a sixth of the work with the
transforms included, and these are matrix products, which CPUs do at full speed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from speechkit.layers.masks import Packing


def spectral_convolution(x: Tensor, weight: Tensor, bias: Tensor, packing: Packing) -> Tensor:
    """`y[t] = bias + sum_k weight[..., k] x[t + k - K // 2]`, with zeros around every utterance.

    Args:
        x: `(N, D)` packed frames.
        weight: `(D, D / G, K)`, as `nn.Conv1d` has it for G groups.
        bias: `(D,)`.
        packing: where the utterances lie.

    Returns:
        `(N, D)`.
    """
    dim, inner, taps = weight.shape
    width, groups = 2 * taps, dim // inner
    hop = width - taps + 1
    forward, inverse = _transforms(width, hop, x.dtype, x.device)
    sources, targets = _blocks(packing, width, hop, taps // 2)
    blocks = torch.cat([x, x.new_zeros(1, dim)]).index_select(0, sources)
    signal = forward @ blocks.view(width, -1)  # (2 F, blocks * D): all real parts, then all imaginary ones
    signal = signal.view(2, -1, len(sources) // width, groups, inner).transpose(2, 3).flatten(1, 2)
    re, im = signal.unbind()
    filters = forward[:, :taps] @ weight.flatten(0, 1).t()  # (2 F, D * D / G)
    filter_re, filter_im = filters.view(2, -1, inner, inner).transpose(2, 3).unbind()
    product_re = torch.baddbmm(torch.bmm(re, filter_re), im, filter_im)  # with the filters' conjugates
    product_im = torch.baddbmm(torch.bmm(im, filter_re), re, filter_im, alpha=-1)
    spectrum = torch.stack([product_re, product_im]).unflatten(1, (-1, groups)).transpose(2, 3)
    frames = (inverse @ spectrum.reshape(len(forward), -1)).view(-1, dim)  # (hop * blocks, D)
    return frames.index_select(0, targets) + bias


@lru_cache(maxsize=8)
def _transforms(width: int, hop: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """`(2 F, width)` from time to frequencies, and `(hop, 2 F)` back to the first `hop` frames."""
    with torch.inference_mode(False), torch.no_grad():
        time = torch.arange(width, dtype=torch.float64)
        frequency = torch.arange(width // 2 + 1, dtype=torch.float64)
        angles = frequency[:, None] * time * (2 * math.pi / width)
        forward = torch.cat([angles.cos(), -angles.sin()])
        counted = torch.full_like(frequency, 2.0)  # a frequency and its mirror image
        counted[0] = counted[-1] = 1.0
        back = torch.cat([angles.cos() * counted[:, None], -angles.sin() * counted[:, None]]) / width
        return forward.to(device, dtype), back[:, :hop].t().contiguous().to(device, dtype)


def _blocks(packing: Packing, width: int, hop: int, before: int) -> tuple[Tensor, Tensor]:
    """Places in the packed frames, N for a zero, of every block; and where each frame's result is.

    Returns:
        `(width * blocks,)` and `(N,)`, both int64; frames of all blocks lie next to each other.
    """
    starts, ends, offset, sizes = [], [], 0, []
    for size in packing.sizes:
        count = -(-size // hop)
        starts += [offset + hop * i for i in range(count)]
        ends += [(offset, offset + size)] * count
        sizes.append(count)
        offset += size
    first, bounds = torch.tensor(starts), torch.tensor(ends)
    places = torch.arange(width)[:, None] - before + first
    places = torch.where((places >= bounds[:, 0]) & (places < bounds[:, 1]), places, packing.total)
    counts = torch.tensor(sizes)
    blocks_before = (counts.cumsum(0) - counts).to(packing.positions.device)
    block = blocks_before.index_select(0, packing.utterance) + packing.positions // hop
    targets = packing.positions % hop * len(starts) + block
    return places.flatten().to(targets.device), targets
