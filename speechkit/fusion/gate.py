"""The gate of Wav-BERT: how much of what was read from the other modality is let in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """`Phi = sigmoid(W [C ; H] + B)` (Zheng et al., 2021, equations 4 and 6).

    Args:
        dim: D of the state and of its context.
        scalar: one value a frame instead of one a frame and dimension.
        bias: B at the start; -2 lets in an eighth.
    """

    def __init__(self, dim: int, scalar: bool = False, bias: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * dim, 1 if scalar else dim)
        nn.init.constant_(self.linear.bias, bias)

    def forward(self, context: Tensor, state: Tensor) -> Tensor:
        """Phi between 0 and 1, at least fp32 (in half precision it would saturate).

        Args:
            context: C, `(N, D)`.
            state: H, `(N, D)`.

        Returns:
            `(N, D)`, or `(N, 1)` for a scalar gate.
        """
        logits = self.linear(torch.cat([context, state], dim=-1))
        return torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def mean_gates(gates: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The mean of each gate of a batch, times a count, to be watched beside the losses.

    Args:
        gates: side -> `(N, D)` packed gates.
        count: that the value will be divided by.

    Returns:
        `gate_<side>` -> a scalar without gradient.
    """
    return {f"gate_{side}": gate.detach().mean() * count for side, gate in gates.items()}
