"""What the transducer loss needs of a node's logits, and their gradient written over them.

On a GPU with Triton each is one kernel (`speechkit.losses.transducer_kernels`).
"""

from __future__ import annotations

import functools
import importlib.util

import torch
from torch import Tensor


@functools.cache
def triton_found() -> bool:
    """Whether Triton is installed; it comes with PyTorch for NVIDIA's GPUs."""
    return importlib.util.find_spec("triton") is not None


def fused(values: Tensor) -> bool:
    """Whether kernels in Triton work at these."""
    return values.is_cuda and triton_found()


def real_labels(tokens: Tensor, token_lengths: Tensor, blank: int) -> Tensor:
    """`(B, U)` labels, with any but the blank where there is none.

    Args:
        tokens: `(B, U)` labels; what lies beyond a length is not looked at.
        token_lengths: `(B,)`.
        blank: id of the blank.

    Raises:
        ValueError: a blank in a target, by its row.
    """
    inside = torch.arange(tokens.size(1), device=tokens.device) < token_lengths.to(tokens.device)[:, None]
    spoilt = ((tokens == blank) & inside).any(1).nonzero().flatten().tolist()
    if spoilt:
        raise ValueError(f"row {spoilt[0]} of the batch: the blank ({blank}) is in the target")
    return tokens.masked_fill(~inside, 1 if blank == 0 else 0)


def read_nodes(logits: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalisers and the log-probabilities of two outputs.

    Args:
        logits: `(N, V)` or `(t, u, V)`.
        labels: `(N)` or `(t, u)`, the next label of each node.
        blank: id of the blank.

    Returns:
        `(N)` or `(t, u)` each: log of the sum of exponentials, log-probability of the blank and of the label.
    """
    if fused(logits):
        from speechkit.losses import transducer_kernels

        return transducer_kernels.read_nodes(logits, labels, blank)
    norm = logits.logsumexp(-1)
    return norm, logits[..., blank] - norm, logits.gather(-1, labels[..., None])[..., 0] - norm


def differentiate_(
    logits: Tensor, labels: Tensor, blank: int, norm: Tensor, of_blank: Tensor, of_label: Tensor
) -> None:
    """Writes the gradient over the logits: d log p_k / d logit_j = [j = k] - p_j.

    Args:
        logits: `(N, V)` or `(t, u, V)`, gone after the call.
        labels: `(N)` or `(t, u)`, as all that follow: the next label of each node.
        blank: id of the blank.
        norm: from `read_nodes`.
        of_blank: gradients of the blanks' log-probabilities.
        of_label: of the labels'.
    """
    if fused(logits):
        from speechkit.losses import transducer_kernels

        transducer_kernels.differentiate_(logits, labels, blank, norm, of_blank, of_label)
        return
    logits.sub_(norm[..., None]).exp_().mul_((of_blank + of_label).neg_()[..., None])
    logits[..., blank] += of_blank
    logits.scatter_add_(-1, labels[..., None], of_label[..., None])
