"""Masked prediction of cluster labels (HuBERT: Hsu et al., 2021, section II): alignment, logits, loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SLACK = 1e-6  # of products that are whole numbers but for rounding


def labelled_lengths(frames: Tensor, labels: Tensor, ratio: float) -> Tensor:
    """How many frames have a label: `(B,)` int64.

    As in fairseq's models/hubert/hubert.py (forward_targets): all T when ratio * T <= L, else
    floor(L / ratio).

    Args:
        frames: `(B,)` encoder frames T.
        labels: `(B,)` labels L.
        ratio: labels for each frame: label rate over frame rate.
    """
    most = torch.floor(labels / ratio + _SLACK).to(torch.int64)
    return torch.where(frames * ratio > labels + _SLACK, most, frames)


def frame_labels(labels: Tensor, width: int, ratio: float) -> Tensor:
    """The label of each frame, `labels[floor(t * ratio)]`: `(B, width)`, arbitrary where there is none.

    Args:
        labels: `(B, L)`.
        width: number of frames.
        ratio: labels for each frame.
    """
    if labels.size(1) == 0:
        return labels.new_zeros(len(labels), width)
    times = torch.arange(width, dtype=torch.float64, device=labels.device)
    index = torch.floor(times * ratio + _SLACK).to(torch.int64).clamp(max=labels.size(1) - 1)
    return labels.index_select(1, index)


def cosine_logits(predictions: Tensor, embeddings: Tensor, temperature: float) -> Tensor:
    """`cos(A o_t, e_c) / tau` (section II.B), `(N, K)` in fp32 (or fp64): between -1 / tau and 1 / tau.

    Args:
        predictions: `(N, F)` projected frames A o_t.
        embeddings: `(K, F)` one vector e_c for each class.
        temperature: tau.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        return _unit(predictions) @ _unit(embeddings).T / temperature


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1, eps=1e-8)


def prediction_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`-sum_t log p(y_t)` over the rows, a scalar in fp32 (or fp64), in nats.

    The released form has the true class twice and gives its copy the logit -inf, which is this loss.

    Args:
        logits: `(N, K)`; N may be 0.
        labels: `(N,)` int64 true classes.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, reduction="sum")


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """`(N,)` bool: the true class has the highest logit, and not all logits are the same.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` true classes.
    """
    best = logits.argmax(-1)
    return (best == labels) & (best != logits.argmin(-1))


def class_perplexity(chosen: Tensor, classes: int) -> Tensor:
    """exp of the entropy of how often each class was chosen, in [1, K]; 0 when there is no frame.

    Args:
        chosen: `(N,)` int64 classes.
        classes: K.
    """
    counts = torch.zeros(classes, dtype=torch.float32, device=chosen.device)
    counts.scatter_add_(0, chosen, torch.ones_like(chosen, dtype=torch.float32))
    share = counts / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum()
    return entropy.exp() * (len(chosen) > 0)
