"""Representation Aggregation: both encoders read each other's output (Zheng et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from speechkit.fusion import blocks
from speechkit.fusion.blocks import FeedForward, GatedAttention, xavier_
from speechkit.layers.cross_attention import Clocks
from speechkit.layers.masks import Packing


@dataclass
class Config(blocks.Config):
    """Which of the two branches there are, and how they are made."""

    branches: Literal["cross_modal", "acoustic_guided", "linguistic_guided"] = "cross_modal"
    """Both, or one: `acoustic_guided` leaves no cross-entropy output, `linguistic_guided` no second CTC."""


class Aggregated(NamedTuple):
    """What comes out; a branch that is not there gives None.

    Attributes:
        acoustic: H_A', `(B, T, acoustic_dim)`, zeros at padding.
        linguistic: H_L', `(B, M, linguistic_dim)`, zeros at padding.
        pictures: nothing unless asked for; else of each branch `acoustic.gate` `(B, T, acoustic_dim)` (or
            `(B, T, 1)`; absent without gates) and `acoustic.attention` `(B, H, T, M)`, or `linguistic.gate`
            `(B, M, linguistic_dim)` and `linguistic.attention` `(B, H, M, T)`.
        gates: side -> its gates, packed, `(N, D)` or `(N, 1)`; none without gates.
    """

    acoustic: Tensor | None
    linguistic: Tensor | None
    pictures: dict[str, Tensor]
    gates: dict[str, Tensor]


class Branch(nn.Module):
    """One direction: gated attention to the other modality and a feed-forward layer.

    Args:
        dim: of the side that reads.
        memory_dim: of the side that is read.
        config: see `Config`.
    """

    def __init__(self, dim: int, memory_dim: int, config: blocks.Config) -> None:
        super().__init__()
        self.read = GatedAttention(dim, memory_dim, config)
        self.feed_forward = FeedForward(dim, config)

    def forward(
        self,
        x: Tensor,
        packing: Packing,
        memory: Tensor,
        memory_packing: Packing,
        inspect: bool,
        clocks: Clocks | None,
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """`(N, dim)` from `(N, dim)` and `(M, memory_dim)`, the gate, and pictures if asked for."""
        state, gate = self.read(x, packing, memory, memory_packing, clocks)
        shown = self.read.pictures(x, packing, memory, memory_packing, gate, clocks) if inspect else {}
        return self.feed_forward(state, packing), gate, shown


class RepresentationAggregation(nn.Module):
    """Equations 2 to 7 of Zheng et al. (2021), and the feed-forward layers after them.

        C_A = ATT(Q=H_A, K=H_L, V=H_L)    Phi_A = sigmoid(W1 [C_A ; H_A] + B1)    H_AGL = H_A + Phi_A * C_A
        C_L = ATT(Q=H_L, K=H_A, V=H_A)    Phi_L = sigmoid(W2 [C_L ; H_L] + B2)    H_LGA = H_L + Phi_L * C_L
        H_A' = H_AGL + FFN_A(H_AGL)       H_L' = H_LGA + FFN_L(H_LGA)

    The first line is the acoustic-guided branch (for CTC), the second the linguistic-guided one (for cross
    entropy); a branch that the configuration leaves out has no parameters. The two widths may differ.

    Args:
        config: see `Config`.
        acoustic_dim: of H_A.
        linguistic_dim: of H_L.

    Attributes:
        gated: sides that have a gate.

    Raises:
        InputError: the heads do not divide a dimension.
    """

    def __init__(self, config: Config, acoustic_dim: int, linguistic_dim: int) -> None:
        super().__init__()
        self.acoustic = self.linguistic = None
        if config.branches != "linguistic_guided":
            self.acoustic = Branch(acoustic_dim, linguistic_dim, config)
        if config.branches != "acoustic_guided":
            self.linguistic = Branch(linguistic_dim, acoustic_dim, config)
        branches = {"acoustic": self.acoustic, "linguistic": self.linguistic}
        self.gated = [side for side, branch in branches.items() if branch and branch.read.gate is not None]
        if config.init == "xavier":
            xavier_(self)

    def forward(
        self,
        acoustic: Tensor,
        acoustic_lengths: Tensor,
        linguistic: Tensor,
        linguistic_lengths: Tensor,
        inspect: bool = False,
        clocks: Clocks | None = None,
    ) -> Aggregated:
        """Lets both sides read each other, as they were before either has read.

        Args:
            acoustic: H_A, `(B, T, acoustic_dim)`; the padding may hold anything.
            acoustic_lengths: `(B,)` frames.
            linguistic: H_L, `(B, M, linguistic_dim)`, with [CLS] and [SEP].
            linguistic_lengths: `(B,)` tokens, [CLS] and [SEP] counted.
            inspect: also give gates and attention maps.
            clocks: times of tokens and frames, padded as they are; for `clock: true`.
        """
        frames, tokens = Packing(acoustic_lengths), Packing(linguistic_lengths)
        times = None if clocks is None else (tokens.pack(clocks[0]), frames.pack(clocks[1]))
        heard, known = (frames.pack(acoustic), frames), (tokens.pack(linguistic), tokens)
        sides = (("acoustic", self.acoustic, heard, known), ("linguistic", self.linguistic, known, heard))
        outputs: dict[str, Tensor] = {}
        pictures: dict[str, Tensor] = {}
        gates: dict[str, Tensor] = {}
        for name, branch, own, other in sides:
            if branch is not None:
                turned = times if times is None or name == "linguistic" else times[::-1]
                state, gate, shown = branch(*own, *other, inspect, turned)
                outputs[name] = own[1].unpack(state)
                pictures.update({f"{name}.{what}": values for what, values in shown.items()})
                gates |= {name: gate} if gate is not None else {}
        return Aggregated(outputs.get("acoustic"), outputs.get("linguistic"), pictures, gates)
