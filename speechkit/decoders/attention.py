"""Additive attention, which may know where it looked before."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.layers.masks import padding_mask, zero_padding


class AdditiveAttention(nn.Module):
    """A state looks for the frames that it needs (Bahdanau et al., 2015, section A.1.2).

    energy(t) = v tanh(W h_t + V s + U f_t), where f_t are features of the weights that the step before gave
    to the frames around t, found by a convolution (Chorowski et al., 2015, section 2.1). The weights are the
    softmax of the energies times `sharpness` (there, section 2.2).

    Args:
        frame_dim: D of the frames h.
        state_dim: dimension of the state s.
        dim: of the space in which both meet.
        channels: of f; 0 for an attention that does not know where it looked.
        kernel: frames that the convolution sees, odd.
        sharpness: factor of the energies.
    """

    def __init__(
        self, frame_dim: int, state_dim: int, dim: int, channels: int, kernel: int, sharpness: float
    ) -> None:
        super().__init__()
        self.frames = nn.Linear(frame_dim, dim)
        self.state = nn.Linear(state_dim, dim, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)
        self.convolution = self.place = None
        if channels:
            self.convolution = nn.Conv1d(1, channels, kernel, padding=kernel // 2, bias=False)
            self.place = nn.Linear(channels, dim, bias=False)
        self.sharpness = sharpness

    def remember(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The frames `(B, T, D)` with zeros at padding, W h `(B, T, A)`, and `(B, T)` bool, True at padding.

        There is at least one frame, of zeros, which an utterance without frames looks at.
        """
        frames = zero_padding(frames, lengths)
        if not frames.size(1):
            frames = F.pad(frames, (0, 0, 0, 1))
        return frames, self.frames(frames), padding_mask(lengths.clamp(min=1), frames.size(1))

    @staticmethod
    def everywhere(memory: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """`(B, T)` equal weights of all frames: where an attention has looked that has not looked yet."""
        weights = (~memory[2]).to(memory[0].dtype)
        return weights / weights.sum(1, keepdim=True)

    def forward(
        self, state: Tensor, memory: tuple[Tensor, Tensor, Tensor], before: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Looks.

        Args:
            state: `(B, W, S)` of W hypotheses for each utterance.
            memory: from `remember`.
            before: `(B, W, T)` weights of the step before.

        Returns:
            What was found `(B, W, D)`, and the weights `(B, W, T)`: zeros at padding, their sum 1.
        """
        frames, keys, hidden = memory
        energy = keys[:, None] + self.state(state)[:, :, None]
        if self.convolution is not None:
            around = self.convolution(before.flatten(0, 1)[:, None]).transpose(1, 2)
            energy = energy + self.place(around).view_as(energy)
        energy = self.score(energy.tanh()).squeeze(-1) * self.sharpness
        weights = energy.masked_fill(hidden[:, None], float("-inf")).softmax(-1)
        return weights @ frames, weights
