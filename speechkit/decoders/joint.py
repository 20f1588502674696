"""The joint network of transducers: softmax(W tanh(f + g) + b) of a frame and a state."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.losses.joint_transducer import Combine, joint_transducer_loss
from speechkit.losses.transducer_lattice import Occupations


@dataclass
class Config:
    """Two projections and an output layer."""

    dim: int = 320
    """Width J at which frames and states meet."""

    combine: Combine = "add"
    """`add`: tanh(f + g), as usual; `multiply`: tanh(f * g)."""

    def __post_init__(self) -> None:
        check_range("dim", self.dim, 1)


class Joint(nn.Module):
    """Projects both sides once, and says what comes next at pairs of them.

    Args:
        config: see `Config`.
        frame_dim: D of the encoder's frames.
        state_dim: D of the prediction network's states.
        vocab_size: V, the blank included.
    """

    def __init__(self, config: Config, frame_dim: int, state_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.combine = config.combine
        self.of_frames = nn.Linear(frame_dim, config.dim)
        self.of_states = nn.Linear(state_dim, config.dim, bias=config.combine == "multiply")
        self.out = nn.Linear(config.dim, vocab_size)

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
    ) -> tuple[Tensor, Occupations]:
        """The transducer loss of projected frames `(B, T, J)` and states `(B, U + 1, J)`.

        Args:
            frames: of the encoder, through `of_frames`.
            states: of the prediction network, for `tokens`, through `of_states`.
            tokens: `(B, U)` labels.
            lengths: `(B,)` frames.
            token_lengths: `(B,)` labels.
            fastemit: see `speechkit.losses.transducer.transducer_loss`.

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
        )
