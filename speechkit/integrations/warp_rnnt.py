"""warp-rnnt's lattice (https://github.com/1ytic/warp-rnnt, `tools/setup.sh warp-rnnt`) in place of ours.

Its `rnnt_loss` is given two outputs a node, the log-probabilities of the blank and of the next label, so that
its memory does not depend on the vocabulary. It is minus the log-probability over all alignments as ours is;
its gradient is minus the occupations.
"""

from __future__ import annotations

import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from speechkit.decoders.joint import Implementation
from speechkit.errors import InputError
from speechkit.losses.node_logits import triton_found
from speechkit.losses.transducer_lattice import Lattice, Occupations
from speechkit.losses.transducer_lattice import occupations as ours


@functools.cache
def installed() -> bool:
    """Whether warp-rnnt is there."""
    return importlib.util.find_spec("warp_rnnt") is not None


def choose(choice: Implementation) -> Lattice:
    """What runs through the lattices.

    Args:
        choice: whose.

    Raises:
        InputError: warp-rnnt is asked for and not there.
    """
    if choice == "warp_rnnt" and not installed():
        raise InputError(
            "joint.loss=warp_rnnt: warp-rnnt is not installed; run tools/setup.sh warp-rnnt (it needs a GPU "
            "and CUDA's compiler), or leave joint.loss=auto"
        )
    return {"auto": _auto, "ours": ours, "warp_rnnt": occupations}[choice]


def _auto(blank: Tensor, label: Tensor, lengths: Tensor, token_lengths: Tensor) -> Occupations:
    theirs = blank.is_cuda and not triton_found() and installed()
    return (occupations if theirs else ours)(blank, label, lengths, token_lengths)


def occupations(blank: Tensor, label: Tensor, lengths: Tensor, token_lengths: Tensor) -> Occupations:
    """What `speechkit.losses.transducer_lattice.occupations` gives, in fp32 throughout.

    Args:
        blank: `(B, T, U + 1)` log-probabilities of the blank.
        label: `(B, T, U)` those of the next label.
        lengths: `(B,)` frames, at least 1.
        token_lengths: `(B,)` labels.

    Raises:
        InputError: the tensors are not on a GPU.
    """
    if not blank.is_cuda:
        raise InputError(
            f"joint.loss=warp_rnnt: warp-rnnt works on GPUs, not on {blank.device}; leave joint.loss=auto"
        )
    from warp_rnnt import rnnt_loss

    sizes = [x.to(blank.device, torch.int32).contiguous() for x in (lengths, token_lengths)]
    with torch.enable_grad():
        pair = torch.stack([blank, F.pad(label, (0, 1))], 3).detach().float().contiguous().requires_grad_()
        ones = torch.ones(label.size(0), label.size(2), dtype=torch.int32, device=blank.device)
        losses = rnnt_loss(pair, ones, *sizes, reduction="none", blank=0)  # output 1 is the label
        (gradient,) = torch.autograd.grad(losses.sum(), pair)
    silent, spoken = (-gradient).to(blank.dtype).unbind(3)
    return Occupations(-losses.detach().to(blank.dtype), silent, spoken[:, :, :-1])
