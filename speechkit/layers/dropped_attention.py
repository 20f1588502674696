"""Softmax attention with dropout of its weights, for CPUs, where PyTorch's fast kernels have no dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechkit.layers.dropout import dropped_places


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:
    """softmax(q k^T / sqrt(d)), of which values are dropped, times v.

    Args:
        q: `(B, H, T, d)`.
        k: `(B, H, M, d)`.
        v: `(B, H, M, d)`.
        rate: probability of dropping an attention weight; the others are scaled by 1 / (1 - rate).

    Returns:
        `(B, H, T, d)`.
    """
    return _DroppedAttention.apply(q, k, v, rate)


class _DroppedAttention(torch.autograd.Function):
    """Keeps the weights with zeros where they were dropped, and apart from them the dropped values."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:
        shape, ctx.rate = q.shape, rate
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B H, T, d)
        scale = 1 / math.sqrt(shape[-1])
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
        weights = torch.softmax(scores, -1)
        places = dropped_places(weights.numel(), rate)
        dropped = weights.view(-1).index_select(0, places)
        weights.view(-1).index_fill_(0, places, 0)
        ctx.save_for_backward(q, k, v, weights, places, dropped)
        return torch.bmm(weights, v).mul_(1 / (1 - rate)).view(shape)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, places, dropped = ctx.saved_tensors
        to_out = gradient.flatten(0, 1) * (1 / (1 - ctx.rate))
        to_v = torch.bmm(weights.transpose(1, 2), to_out)
        to_weights = torch.bmm(to_out, v.transpose(1, 2))
        to_weights.view(-1).index_fill_(0, places, 0)
        whole = weights.clone().view(-1).index_copy_(0, places, dropped).view_as(weights)
        to_scores = torch._softmax_backward_data(to_weights, whole, -1, weights.dtype)
        to_scores.mul_(1 / math.sqrt(q.size(-1)))
        to_q, to_k = torch.bmm(to_scores, k), torch.bmm(to_scores.transpose(1, 2), q)
        return *(x.unflatten(0, gradient.shape[:2]) for x in (to_q, to_k, to_v)), None
