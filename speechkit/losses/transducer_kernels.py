"""The transducer loss on NVIDIA's GPUs: Triton kernels for its lattice and for the logits of its nodes.

Imported only where a tensor is on a GPU and Triton is installed (`speechkit.losses.node_logits.fused`); the
functions do what those of the same name in `transducer_lattice` and `node_logits` do.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from speechkit.losses.transducer_lattice import NOTHING, Occupations

BLOCK = 1024
"""Numbers that a program of an element-wise kernel, or a pass over a row of logits, works at together."""

_NOTHING = tl.constexpr(NOTHING)


def occupations(blank: Tensor, label: Tensor, lengths: Tensor, token_lengths: Tensor) -> Occupations:
    """Runs through the lattices a row at a time, all frames of a row at once.

    Within a row a(t) = log(exp(a(t-1) + left(t)) + exp(start(t))), a linear recurrence for exp(a), which is
    an associative scan of pairs (log-probability of passing some frames, a at their end).

    Args:
        blank: `(B, T, U + 1)` log-probabilities of the blank, fp32 or fp64; results are of the same type.
        label: `(B, T, U)` those of the next label.
        lengths: `(B,)` frames, at least 1.
        token_lengths: `(B,)` labels.
    """
    (batch, frames, rows), device = blank.shape, blank.device
    blank, label = blank.contiguous(), label.contiguous()
    ends, tops = (x.to(device, torch.int64).contiguous() for x in (lengths, token_lengths))
    both = torch.empty(2, batch, frames, rows, dtype=torch.float64, device=device)
    width = triton.next_power_of_2(frames)
    silent, spoken = torch.empty_like(blank), torch.empty_like(label)
    with torch.cuda.device_of(blank):
        warps = max(4, min(16, width // 512))
        _run[(batch, 2)](blank, label, both, ends, tops, batch, frames, rows, width, num_warps=warps)
        grid = (batch, triton.cdiv(frames * rows, BLOCK))
        _share[grid](blank, label, both, silent, spoken, ends, tops, batch, frames, rows, BLOCK)
    return Occupations(both[1, :, 0, 0].to(blank.dtype), silent, spoken)


def read_nodes(logits: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalisers and the log-probabilities of two outputs, in one pass over the logits.

    Args:
        logits: `(N, V)` or `(t, u, V)`; the last axis is contiguous.
        labels: `(N)` or `(t, u)`.
        blank: id of the blank.
    """
    found = [torch.empty(labels.shape, dtype=logits.dtype, device=logits.device) for _ in range(3)]
    with torch.cuda.device_of(logits):
        _read[(labels.numel(),)](logits, labels.contiguous(), *found, *_strides(logits), blank, BLOCK)
    return found[0], found[1], found[2]


def differentiate_(
    logits: Tensor, labels: Tensor, blank: int, norm: Tensor, of_blank: Tensor, of_label: Tensor
) -> None:
    """Writes the gradient over the logits; nodes without gradients get zeros, whatever they hold.

    Args:
        logits: `(N, V)` or `(t, u, V)`; the last axis is contiguous.
        labels: `(N)` or `(t, u)`, as all that follow.
        blank: id of the blank.
        norm: from `read_nodes`.
        of_blank: gradients of the blanks' log-probabilities.
        of_label: of the labels'.
    """
    nodes = [x.contiguous() for x in (labels, norm, of_blank, of_label)]
    grid = (labels.numel(), triton.cdiv(logits.size(-1), BLOCK))
    with torch.cuda.device_of(logits):
        _differentiate[grid](logits, *nodes, *_strides(logits), blank, BLOCK)


def _strides(logits: Tensor) -> tuple[int, int, int, int]:
    """Of `(t, u, V)`: u, the steps from a frame and from a row to the next, V."""
    if logits.dim() == 2:
        logits = logits[None]
    if logits.dim() != 3 or logits.stride(2) != 1:
        raise ValueError(f"logits (N, V) or (t, u, V) with a contiguous last axis, not {logits.shape}")
    return logits.size(1), logits.stride(0), logits.stride(1), logits.size(2)


# ---- the lattice -----------------------------------------------------------------------------------------


@triton.jit
def _log_add(a, b):  # not a number stays so: tl.maximum would hide it
    high, low = tl.where(a > b, a, b), tl.where(a > b, b, a)
    return high + tl.log(1 + tl.exp(low - high))


@triton.jit
def _join(passed, found, more, new):
    return passed + more, _log_add(found + more, new)


@triton.jit
def _floor(x):
    return tl.where(x < _NOTHING, _NOTHING, x)


@triton.jit
def _run(blank, label, both, lengths, sizes, batch, frames, rows, WIDTH: tl.constexpr):
    """Alpha (program axis 1 at 0) or beta (at 1), which obeys the same with both axes turned."""
    i, turned = tl.program_id(0).to(tl.int64), tl.program_id(1) == 1
    length, size = tl.load(lengths + i), tl.load(sizes + i)
    t = tl.arange(0, WIDTH)
    inside = t < length
    frame = tl.where(turned, length - 1 - t, t)
    final = tl.load(blank + (i * frames + length - 1) * rows + size).to(tl.float64)
    first = tl.where(turned, _floor(final), 0.0)
    place = (tl.program_id(1) * batch + i) * frames
    before = tl.full((WIDTH,), _NOTHING, tl.float64)
    for u in range(0, size + 1):
        row = tl.where(turned, size - u, u)
        silent = (i * frames + tl.where(turned, frame, frame - 1)) * rows + row
        left = _floor(tl.load(blank + silent, mask=inside & (t > 0), other=0.0).to(tl.float64))
        spoken = (i * frames + frame) * (rows - 1) + tl.where(turned, row, row - 1)
        below = _floor(tl.load(label + spoken, mask=inside & (u > 0), other=0.0).to(tl.float64))
        start = tl.where(u > 0, before + below, tl.where(t == 0, first, _NOTHING))
        _, found = tl.associative_scan((left, start), 0, _join)
        before = _floor(found)
        tl.store(both + (place + frame) * rows + row, before, mask=inside)


@triton.jit
def _share(
    blank, label, both, silent, spoken, lengths, sizes, batch, frames, rows, BLOCK: tl.constexpr
):  # fmt: skip
    """What share of the paths takes each arc."""
    i = tl.program_id(0).to(tl.int64)
    length, size = tl.load(lengths + i), tl.load(sizes + i)
    node = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    t, u = node // rows, node % rows
    here, there = t < frames, (t < frames) & (u < rows - 1)
    inside = (t < length) & (u <= size)
    alphas = both + i * frames * rows
    betas = alphas + batch * frames * rows
    alpha = tl.load(alphas + node, mask=inside, other=_NOTHING) - tl.load(betas)
    arc = tl.load(blank + i * frames * rows + node, mask=inside, other=0.0).to(tl.float64)
    after = tl.load(betas + node + rows, mask=inside & (t < length - 1), other=_NOTHING)
    share = tl.where(inside, tl.exp(alpha + arc + after), 0.0)
    share = tl.where((t == length - 1) & (u == size), 1.0, share)
    tl.store(silent + i * frames * rows + node, share, mask=here)
    other = i * frames * (rows - 1) + t * (rows - 1) + u
    up = inside & (u < size)
    arc = tl.load(label + other, mask=up, other=0.0).to(tl.float64)
    above = tl.load(betas + node + 1, mask=up, other=_NOTHING)
    tl.store(spoken + other, tl.where(up, tl.exp(alpha + arc + above), 0.0), mask=there)


# ---- logits ----------------------------------------------------------------------------------------------


@triton.jit
def _read(
    logits, labels, norm, silent, spoken, rows, per_frame, per_row, vocab, blank, BLOCK: tl.constexpr
):  # fmt: skip
    """Log of the sum of exponentials with a running maximum in each of BLOCK lanes."""
    n = tl.program_id(0).to(tl.int64)
    node = logits + (n // rows) * per_frame + (n % rows) * per_row
    k = tl.arange(0, BLOCK)
    high = tl.full((BLOCK,), _NOTHING, logits.dtype.element_ty)
    total = tl.zeros((BLOCK,), logits.dtype.element_ty)
    for start in range(0, vocab, BLOCK):
        z = tl.load(node + start + k, mask=start + k < vocab, other=_NOTHING)
        new = tl.where(z > high, z, high)
        total = total * tl.exp(high - new) + tl.exp(z - new)
        high = new
    most = tl.max(high, 0)
    found = most + tl.log(tl.sum(total * tl.exp(high - most), 0))
    tl.store(norm + n, found)
    tl.store(silent + n, tl.load(node + blank) - found)
    tl.store(spoken + n, tl.load(node + tl.load(labels + n)) - found)


@triton.jit
def _differentiate(
    logits, labels, norm, of_blank, of_label, rows, per_frame, per_row, vocab, blank, BLOCK: tl.constexpr
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = logits + (n // rows) * per_frame + (n % rows) * per_row + k
    first, second = tl.load(of_blank + n), tl.load(of_label + n)
    z = tl.load(place, mask=k < vocab, other=0.0)
    found = -(first + second) * tl.exp(z - tl.load(norm + n))
    found += tl.where(k == blank, first, 0.0) + tl.where(k == tl.load(labels + n), second, 0.0)
    found = tl.where((first == 0) & (second == 0), 0.0, found)
    tl.store(place, found, mask=k < vocab)
