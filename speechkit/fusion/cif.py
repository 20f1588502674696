"""Continuous integrate-and-fire (Dong and Xu, 2020) in closed form: from frames to token vectors.

A frame carries a weight alpha_t; weights are summed over time, and a token ends wherever the sum reaches the
next whole number. With S_t = alpha_1 + ... + alpha_t, frame t gives token u the part of its weight that lies
between u - 1 and u:

    w_ut = max(0, min(S_t, u) - max(S_{t-1}, u - 1)),        c_u = sum_t w_ut h_t

which is the published recursion with threshold 1, for any alpha_t >= 0, those above 1 included. Cutting the
line from 0 to S_T at all S_t and at all whole numbers leaves at most T + U pieces, each of one frame and one
token, so that all tokens cost one weighted sum over pieces and no `(B, U, T)` weights are ever held.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.layers.masks import Packing, padding_mask


def totals(alpha: Tensor, lengths: Tensor) -> Tensor:
    """`(B,)` float64 sums of `(B, T)` weights over the valid frames."""
    return alpha.masked_fill(padding_mask(lengths, alpha.size(1)), 0).sum(1, dtype=torch.float64)


def token_counts(alpha: Tensor, lengths: Tensor) -> Tensor:
    """`(B,)` int64 tokens that the weights speak of: the sum, halves rounded up; 0 for a sum below a half."""
    return (totals(alpha.detach(), lengths) + 0.5).floor().long()


def quantity_loss(alpha: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """Sum over utterances of |sum_t alpha_t - N|, float64.

    Args:
        alpha: `(B, T)` weights before any scaling.
        lengths: `(B,)` frames.
        counts: `(B,)` tokens N of the reference.
    """
    return (totals(alpha, lengths) - counts).abs().sum()


def scale(alpha: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """Weights that sum to the number of tokens.

    Args:
        alpha: `(B, T)` weights.
        lengths: `(B,)` frames.
        counts: `(B,)` tokens.

    Returns:
        `(B, T)` float64, zeros at padding; all zeros where the weights sum to 0.
    """
    sums = totals(alpha, lengths)
    factors = counts / sums.where(sums > 0, 1)
    return alpha.masked_fill(padding_mask(lengths, alpha.size(1)), 0).double() * factors[:, None]


def integrate(x: Tensor, alpha: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """Token vectors c_u; differentiable in frames and weights.

    Where a sum is exactly a whole number, the weights' gradient is the one from the right. What is left when
    the last token is full is dropped; a token that the weights do not fill keeps what it got.

    Args:
        x: `(B, T, D)` frames; padding may hold anything.
        alpha: `(B, T)` weights >= 0; float64 keeps sums over long utterances exact, see `scale`.
        lengths: `(B,)` frames.
        counts: `(B,)` tokens.

    Returns:
        `(B, max counts, D)` in at least fp32, zeros beyond the counts.
    """
    batch, frames, dim = x.shape
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    width = int(counts.max()) if batch else 0
    if not batch * frames * width:
        return x.new_zeros(batch, width, dim)
    alpha = alpha.masked_fill(padding_mask(lengths, frames), 0)
    index, weights, starts = _pieces(alpha.double().cumsum(1), lengths, counts, width)
    sums = F.embedding_bag(
        index, x.flatten(0, 1), starts.flatten(), mode="sum", per_sample_weights=weights.to(x.dtype)
    )
    return sums.unflatten(0, (batch, width))


def _pieces(ends: Tensor, lengths: Tensor, counts: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The line from 0 to S_T in pieces, in order of time, utterance after utterance.

    Every frame has a piece that ends with it, at S_t; every token that is filled has one that ends with it,
    at u, in the first frame with S_t >= u. Merging both orders needs no sorting: before the piece at S_t lie
    t - 1 others of frames and floor(S_t) of tokens.

    Args:
        ends: `(B, T)` float64 sums S_t.
        lengths: `(B,)` frames.
        counts: `(B,)` tokens.
        width: U, the most tokens.

    Returns:
        `(P,)` the frame of each piece among all B T, `(P,)` its weight, and `(B, U)` the first piece of each
        token.
    """
    before = F.pad(ends, (1, 0))[:, :-1]
    passed = ends.detach().floor().long().cummax(1).values  # a parallel sum may step back by a rounding
    filled = torch.minimum(counts, passed[:, -1])
    of_frames, of_tokens = Packing(lengths), Packing(filled)
    last = (lengths + filled).cumsum(0)
    first = last - lengths - filled

    end, start, whole = of_frames.pack(ends), of_frames.pack(before), of_frames.pack(passed)
    wanted = counts.index_select(0, of_frames.utterance)
    weight = torch.where(whole < wanted, end - start.where(start >= whole, whole.to(end.dtype)), 0)
    base = first.index_select(0, of_frames.utterance)
    place = base + of_frames.positions + torch.minimum(whole, wanted)
    frame = of_frames.utterance * ends.size(1) + of_frames.positions

    token = torch.arange(width, device=ends.device)
    crossing = torch.searchsorted(passed, (token + 1).expand(len(ends), -1).contiguous())
    crossing.clamp_(max=ends.size(1) - 1)
    opened = of_tokens.pack(before.gather(1, crossing))
    u, k = of_tokens.positions, of_tokens.pack(crossing)
    token_weight = (u + 1) - opened.where(opened >= u, u.to(opened.dtype))
    token_place = first.index_select(0, of_tokens.utterance) + u + k
    token_frame = of_tokens.utterance * ends.size(1) + k

    places = torch.cat([place, token_place])
    index = torch.empty_like(places).index_copy_(0, places, torch.cat([frame, token_frame]))
    weights = torch.cat([weight, token_weight])
    weights = torch.zeros_like(weights).index_copy(0, places, weights)
    after = first[:, None] + token + F.pad(crossing, (1, 0))[:, :-1]
    return index, weights, after.where(token <= filled[:, None], last[:, None])


def dense_weights(alpha: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """`(B, U, T)` float64 w_ut, written as the formula is: for plots of where tokens fire."""
    ends = alpha.masked_fill(padding_mask(lengths, alpha.size(1)), 0).double().cumsum(1)[:, None]
    starts = F.pad(ends, (1, 0))[..., :-1]
    u = torch.arange(1, int(counts.max()) + 1, device=alpha.device, dtype=torch.float64)[:, None]
    weights = (torch.minimum(ends, u) - torch.maximum(starts, u - 1)).clamp(min=0)
    return weights * (u <= counts[:, None, None])


@dataclass
class CifOutput:
    """What `Cif` returns.

    Attributes:
        vectors: `(B, U, output_dim)` one for each token; arbitrary beyond the counts.
        counts: `(B,)` tokens.
        alpha: `(B, T)` weights before scaling, at least fp32, zeros at padding.
        content: `(B, T, input_dim - 1)` the other channels of the frames.
    """

    vectors: Tensor
    counts: Tensor
    alpha: Tensor
    content: Tensor


class Cif(nn.Module):
    """Integrates an encoder's frames; their last channel speaks of weights, the others of content.

    As in w2v-cif-bert (Yi et al., 2021): alpha_t = sigmoid(last channel), scaled so that the weights sum to
    the number of tokens: that of the reference in training, the rounded sum otherwise.

    Args:
        input_dim: channels of the frames, at least 2.
        output_dim: of the token vectors.
    """

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_dim - 1, output_dim)

    def forward(
        self, frames: Tensor, lengths: Tensor, counts: Tensor | None = None, longest: int | None = None
    ) -> CifOutput:
        """Integrates and fires.

        Args:
            frames: `(B, T, input_dim)`.
            lengths: `(B,)`.
            counts: `(B,)` tokens of the reference, or None.
            longest: most tokens that are wanted; the first ones are kept.
        """
        content, last = frames[..., :-1], frames[..., -1]
        last = last.to(torch.promote_types(last.dtype, torch.float32))
        alpha = last.sigmoid().masked_fill(padding_mask(lengths, frames.size(1)), 0)
        counts = token_counts(alpha, lengths) if counts is None else counts
        scaled = scale(alpha, lengths, counts)
        counts = counts if longest is None else counts.clamp(max=longest)
        return CifOutput(self.project(integrate(content, scaled, lengths, counts)), counts, alpha, content)
