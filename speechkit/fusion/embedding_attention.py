"""Embedding Attention: BERT's embeddings hear the speech before its first layer (Zheng et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from speechkit.fusion import blocks
from speechkit.fusion.blocks import GatedAttention, SelfAttentionBlock, xavier_
from speechkit.layers.cross_attention import Clocks
from speechkit.layers.masks import Packing


@dataclass
class Config(blocks.Config):
    """How the embedding attention is made; no section at all leaves it out."""


class Attended(NamedTuple):
    """What goes into BERT's first layer.

    Attributes:
        embeddings: E', `(B, M, D)`, zeros at padding.
        pictures: nothing unless asked for; else `embedding.gate` `(B, M, D)` (or `(B, M, 1)`; absent without
            gates) and `embedding.attention` `(B, H, M, T)`.
        gates: `embedding` -> its gates, packed, `(N, D)` or `(N, 1)`; none without gates.
    """

    embeddings: Tensor
    pictures: dict[str, Tensor]
    gates: dict[str, Tensor]


class EmbeddingAttention(nn.Module):
    """Self-attention over BERT's embeddings, then gated attention to the speech.

        E_L = SelfAttentionBlock(E)       C_E = ATT(Q=E_L, K=H_A, V=H_A)
        Phi_E = sigmoid(W3 [C_E ; E_L] + B3)       E' = E_L + Phi_E * C_E

    The paper prints no equation for E'; it is given the form of the paper's equations 4 and 5.

    Args:
        config: see `Config`.
        dim: D of the embeddings.
        acoustic_dim: of H_A.

    Attributes:
        gated: sides that have a gate.

    Raises:
        InputError: the heads do not divide D.
    """

    def __init__(self, config: Config, dim: int, acoustic_dim: int) -> None:
        super().__init__()
        self.block = SelfAttentionBlock(dim, config)
        self.read = GatedAttention(dim, acoustic_dim, config)
        self.gated = [] if self.read.gate is None else ["embedding"]
        if config.init == "xavier":
            xavier_(self)

    def forward(
        self,
        embeddings: Tensor,
        lengths: Tensor,
        acoustic: Tensor,
        acoustic_lengths: Tensor,
        inspect: bool = False,
        clocks: Clocks | None = None,
    ) -> Attended:
        """Lets the embeddings hear the speech.

        Args:
            embeddings: E, `(B, M, D)`, BERT's whole embedding output, with [CLS] and [SEP].
            lengths: `(B,)` tokens, [CLS] and [SEP] counted.
            acoustic: H_A, `(B, T, acoustic_dim)`; the padding may hold anything.
            acoustic_lengths: `(B,)` frames.
            inspect: also give the gate and the attention map.
            clocks: times of tokens and frames, padded as they are; for `clock: true`.
        """
        tokens, frames = Packing(lengths), Packing(acoustic_lengths)
        state = self.block(tokens.pack(embeddings), tokens)
        heard = (frames.pack(acoustic), frames)
        times = None if clocks is None else (tokens.pack(clocks[0]), frames.pack(clocks[1]))
        out, gate = self.read(state, tokens, *heard, times)
        shown = self.read.pictures(state, tokens, *heard, gate, times) if inspect else {}
        pictures = {f"embedding.{what}": values for what, values in shown.items()}
        return Attended(tokens.unpack(out), pictures, {} if gate is None else {"embedding": gate})
