"""The joint network of transducers: softmax(W tanh(f + g) + b) of a frame and a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.losses.joint_transducer import Combine, joint_transducer_loss
from speechkit.losses.label_windows import Windows, additive_loss, label_windows
from speechkit.losses.transducer_lattice import Lattice, Occupations, occupations

Implementation = Literal["auto", "ours", "warp_rnnt"]
"""Who runs through the lattices: `auto` is warp-rnnt on a GPU where it is installed and Triton is not, else
ours."""


@dataclass
class Config:
    """Two projections and an output layer."""

    dim: int = 320
    """Width J at which frames and states meet."""

    combine: Combine = "add"
    """`add`: tanh(f + g), as usual; `multiply`: tanh(f * g)."""

    pruned: int | None = None
    """Labels that are considered in each frame, about where a cheap joint network trained beside it sees them
    (Kuang et al., 2022); null for all, which is exact."""

    loss: Implementation = "auto"
    """Whose lattice computes the loss: auto, ours or warp_rnnt; the loss is the same."""

    def __post_init__(self) -> None:
        check_range("dim", self.dim, 1)
        if self.pruned is not None:
            check_range("pruned", self.pruned, 2)


class Joint(nn.Module):
    """Projects both sides once, and says what comes next at pairs of them.

    Args:
        config: see `Config`.
        frame_dim: D of the encoder's frames.
        state_dim: D of the prediction network's states.
        vocab_size: V, the blank included.
        lattice: what runs through the lattices of the loss.
    """

    def __init__(
        self,
        config: Config,
        frame_dim: int,
        state_dim: int,
        vocab_size: int,
        lattice: Lattice = occupations,
    ) -> None:
        super().__init__()
        self.combine, self.pruned, self.lattice = config.combine, config.pruned, lattice
        self.of_frames = nn.Linear(frame_dim, config.dim)
        self.of_states = nn.Linear(state_dim, config.dim, bias=config.combine == "multiply")
        self.out = nn.Linear(config.dim, vocab_size)
        if config.pruned is not None:  # built last: what is above begins alike
            self.simple_frames = nn.Linear(config.dim, vocab_size)
            self.simple_states = nn.Linear(config.dim, vocab_size, bias=False)

    def forward(self, frames: Tensor, states: Tensor) -> Tensor:
        """`(..., J)` projected frames and states to `(..., V)` log-probabilities in fp32 at least."""
        both = frames + states if self.combine == "add" else frames * states
        logits = self.out(both.tanh())
        return (logits.float() if logits.element_size() < 4 else logits).log_softmax(-1)

    def loss(
        self,
        frames: Tensor,
        states: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        token_lengths: Tensor,
        fastemit: float = 0.0,
        windows: Windows | None = None,
    ) -> tuple[Tensor, Occupations]:
        """The transducer loss of projected frames `(B, T, J)` and states `(B, U + 1, J)`.

        Args:
            frames: of the encoder, through `of_frames`.
            states: of the prediction network, for `tokens`, through `of_states`.
            tokens: `(B, U)` labels.
            lengths: `(B,)` frames.
            token_lengths: `(B,)` labels.
            fastemit: see `speechkit.losses.transducer.transducer_loss`.
            windows: labels that are considered in each frame, from `guess`; None for all.

        Returns:
            `(B,)` losses and the occupations of the lattices.
        """
        return joint_transducer_loss(
            frames,
            states,
            self.out.weight,
            self.out.bias,
            tokens,
            lengths,
            token_lengths,
            combine=self.combine,
            fastemit=fastemit,
            windows=windows,
            lattice=self.lattice,
        )

    def guess(
        self, frames: Tensor, states: Tensor, tokens: Tensor, lengths: Tensor, token_lengths: Tensor
    ) -> tuple[Tensor, Windows]:
        """The loss of the cheap joint network, with `pruned`, and where it sees the labels.

        Args:
            frames: `(B, T, J)` as in `loss`.
            states: `(B, U + 1, J)` as in `loss`.
            tokens: `(B, U)` labels.
            lengths: `(B,)` frames.
            token_lengths: `(B,)` labels.

        Returns:
            `(B,)` losses, which teach the cheap network and those below, and the windows.
        """
        weights = self.simple_frames.weight, self.simple_states.weight, self.simple_frames.bias
        sizes = lengths, token_lengths
        losses, found = additive_loss(frames, states, tokens, *sizes, weights, lattice=self.lattice)
        return losses, label_windows(found, *sizes, self.pruned)
