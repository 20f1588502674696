"""The conditional masked language model: how the truth is hidden from BERT's branch, and a new head."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.hashing import mix, uniform

SALT = 0xC3141
COUNT, PLACE, ACTION, TOKEN = range(4)  # purposes of draws
MASKED, RANDOM = 0.8, 0.1  # shares of the chosen tokens (Devlin et al., 2019); the rest stays as it is

Noise = Literal["abnet", "all_mask"]


class Noised(NamedTuple):
    """Tokens with some of them hidden.

    Attributes:
        tokens: `(B, N)` ids; at random tokens not the true ones, at `masked` the true ones still.
        masked: `(B, N)` bool, True where `[MASK]` is to stand.
        chosen: `(B, N)` bool, True where a token is to be predicted: masked, random or left as it is.
    """

    tokens: Tensor
    masked: Tensor
    chosen: Tensor


def add_noise(
    tokens: Tensor, lengths: Tensor, keys: Tensor, vocab_size: int, noise: Noise = "abnet"
) -> Noised:
    """Chooses tokens to predict, a uniformly drawn number of them at uniformly drawn places.

    `abnet` (Guo et al., 2020: AB-Net) chooses 1 to N of N tokens and makes 80 % of them `[MASK]`, 10 % random
    ones and leaves 10 %; `all_mask` (Ghazvininejad et al., 2019: Mask-Predict) masks all of 1 to N - 1 (a
    single token too). A row is a function of the utterance's key and length alone. [CLS], [SEP] and padding
    are not among the tokens given here, and so are never chosen.

    Args:
        tokens: `(B, N)` linguistic ids (0 is [UNK]), padded with anything.
        lengths: `(B,)` tokens; 0 is allowed.
        keys: `(B,)` int64 on the CPU, see `speechkit.data.batch.Batch`.
        vocab_size: V'; random tokens are drawn from 1 ... V' - 1.
        noise: which of the two.

    Returns:
        See `Noised`; on the device of `tokens`.
    """
    sizes, seeds = lengths.cpu().numpy(), mix(keys.cpu().numpy(), SALT)
    most = sizes if noise == "abnet" else np.maximum(sizes - 1, 1)
    counts = 1 + np.floor(uniform(seeds, COUNT) * most).astype(np.int64)
    shares = (MASKED, RANDOM) if noise == "abnet" else (1.0, 0.0)
    return hide(tokens, lengths, counts, seeds, vocab_size, shares)


def hide(
    tokens: Tensor,
    lengths: Tensor,
    counts: np.ndarray,
    seeds: np.ndarray,
    vocab_size: int,
    shares: tuple[float, float] = (MASKED, RANDOM),
) -> Noised:
    """Chooses so many tokens of each row, at uniformly drawn places, and hides them; see `add_noise`.

    Args:
        tokens: `(B, N)` linguistic ids, padded with anything.
        lengths: `(B,)` tokens.
        counts: `(B,)` tokens to choose; no more than there are will be.
        seeds: `(B,)` hashes of the utterances' keys.
        vocab_size: V'; random tokens are drawn from 1 ... V' - 1.
        shares: of the chosen tokens, those that become `[MASK]` and those that become random ones.
    """
    sizes, width = lengths.cpu().numpy(), tokens.size(1)
    seeds, places = seeds[:, None], np.arange(width)
    order = np.where(places < sizes[:, None], uniform(seeds, PLACE, places), 2.0)
    chosen = (order.argsort(1).argsort(1) < counts[:, None]) & (places < sizes[:, None])
    action, masking = uniform(seeds, ACTION, places), shares[0]
    others = 1 + np.floor(uniform(seeds, TOKEN, places) * (vocab_size - 1)).astype(np.int64)
    swapped = chosen & (action >= masking) & (action < sum(shares)) & (vocab_size > 1)
    masked = chosen & (action < masking)
    masks = (torch.from_numpy(values).to(tokens.device) for values in (masked, chosen, swapped, others))
    masked, chosen, swapped, others = masks
    return Noised(torch.where(swapped, others, tokens), masked, chosen)


class NewHead(nn.Module):
    """A feed-forward output layer that begins with nothing known, instead of BERT's own.

    Args:
        dim: D of BERT's states.
        vocab_size: V'.
    """

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.out = nn.Linear(dim, vocab_size)

    def forward(self, states: Tensor) -> Tensor:
        """`(..., D)` to logits `(..., V')`."""
        return self.out(self.norm(F.gelu(self.inner(states))))
