"""Embedding Replacement: position queries gather speech into the slots of BERT's word embeddings.

As in NAR-BERT-ASR (Yu and Chen, 2021), and an ablation of Wav-BERT (Zheng et al., 2021): learned queries,
one for each position of the answer, attend to the speech; self-attention blocks follow; the result H_pos
takes the place of BERT's word embeddings. The answer ends with its first [SEP].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.fusion import blocks
from speechkit.fusion.blocks import GatedAttention, SelfAttentionBlock, xavier_
from speechkit.layers.masks import Packing, padding_mask
from speechkit.layers.positions import add_positions


@dataclass
class Config(blocks.Config):
    """How the positions are made."""

    max_len: int = 60
    """Positions; texts of more than two tokens fewer are left out of training."""

    layers: int = 3
    """Self-attention blocks."""

    gate: Literal["vector", "scalar", "none"] = "none"
    """A gate on what is read from the speech; published without."""

    init: Literal["identity", "xavier"] = "xavier"
    """`identity` begins with positions that have heard nothing."""

    frame_positions: bool = False
    """Add absolute positions to the frames that are read. A place in a text that is all to be guessed has
    nothing else to find its frames by, and those of an encoder with rotary positions do not know their place;
    published without, as wav2vec 2.0's know from the edges of their convolutions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("max_len", self.max_len, 3)
        check_range("layers", self.layers, 0)

    @property
    def longest_text(self) -> int:
        """Most tokens of a training text."""
        return self.max_len - 2


class EmbeddingReplacement(nn.Module):
    """H_pos of an utterance.

    Args:
        config: see `Config`.
        dim: D of the positions, that of BERT's word embeddings.
        acoustic_dim: of the speech.

    Raises:
        InputError: the heads do not divide D.
    """

    def __init__(self, config: Config, dim: int, acoustic_dim: int) -> None:
        super().__init__()
        self.frame_positions = config.frame_positions
        self.positions = nn.Parameter(torch.empty(config.max_len, dim))
        self.read = GatedAttention(dim, acoustic_dim, config)
        self.blocks = nn.ModuleList(SelfAttentionBlock(dim, config) for _ in range(config.layers))
        self.norm = config.norm_in(dim)
        if config.init == "xavier":
            xavier_(self)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, acoustic: Tensor, lengths: Tensor) -> Tensor:
        """Gathers.

        Args:
            acoustic: H_A, `(B, T, acoustic_dim)`; the padding may hold anything.
            lengths: `(B,)` frames.

        Returns:
            H_pos, `(B, max_len, D)`.
        """
        x, slots, heard, frames = self._sides(acoustic, lengths)
        x, _ = self.read(x, slots, heard, frames)
        for block in self.blocks:
            x = block(x, slots)
        return self.norm(x).unflatten(0, (len(lengths), -1))

    def attention(self, acoustic: Tensor, lengths: Tensor) -> Tensor:
        """`(B, H, max_len, T)`: where each position listens, for pictures."""
        return self.read.attention.maps(*self._sides(acoustic, lengths))

    def _sides(self, acoustic: Tensor, lengths: Tensor) -> tuple[Tensor, Packing, Tensor, Packing]:
        """The queries of every utterance and the speech, both packed."""
        frames = Packing(lengths)
        slots = Packing(torch.full_like(lengths, len(self.positions)))
        queries = self.positions.expand(len(lengths), -1, -1).flatten(0, 1)
        packed = frames.pack(acoustic)
        return queries, slots, add_positions(packed, frames) if self.frame_positions else packed, frames


def targets(ids: Tensor, lengths: Tensor, sep_id: int, max_len: int, ignore: int = -100) -> Tensor:
    """What each position is trained to say: the tokens, then [SEP], then anything.

    Args:
        ids: `(B, U)` tokens; padding of any content.
        lengths: `(B,)`; of a text of `max_len` tokens or more only the first `max_len` have a place.
        sep_id: the id of [SEP].
        max_len: positions.
        ignore: stands where nothing is asked for.

    Returns:
        `(B, max_len)`.
    """
    missing = max(0, max_len - ids.size(1))
    wanted = nn.functional.pad(ids, (0, missing))[:, :max_len]
    wanted = wanted.masked_fill(padding_mask(lengths, max_len), ignore)
    place = torch.arange(max_len, device=ids.device) == lengths[:, None]
    return wanted.masked_fill(place, sep_id)


def answer_lengths(ids: Tensor, sep_id: int) -> Tensor:
    """`(B,)` tokens before the first [SEP] of each `(B, max_len)` row; all of them if there is none."""
    return (ids != sep_id).cumprod(1).sum(1)
