"""What masked prediction and fine-tuning hide of the first block's input."""

from __future__ import annotations

import torch
from torch import Tensor

from speechkit.layers.masks import Packing


def hide(
    x: Tensor,
    packing: Packing,
    embedding: Tensor | None,
    mask: Tensor | None,
    channel_mask: Tensor | None,
) -> Tensor:
    """Replaces masked frames, then zeroes masked channels.

    Args:
        x: `(N, D)` packed frames.
        packing: where the utterances lie.
        embedding: `(D,)` learned vector of an encoder that has one.
        mask: `(B, T')` bool with T' of at least `packing.width`, True at frames that become the embedding;
            None for none.
        channel_mask: `(B, D)` bool, True at channels that are 0 in all frames; None for none.

    Returns:
        `(N, D)`; `x` itself stays as it is.

    Raises:
        ValueError: a `mask`, and no embedding.
    """
    if mask is not None:
        if embedding is None:
            raise ValueError("a mask needs an encoder built with mask_embedding: true")
        x = torch.where(packing.pack(mask)[:, None], embedding.to(x.dtype), x)
    if channel_mask is not None:
        x = x.masked_fill(channel_mask.index_select(0, packing.utterance), 0)
    return x
