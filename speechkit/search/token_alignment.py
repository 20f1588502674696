"""Which reference token each token of a hypothesis stands for: Levenshtein alignment of a whole batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class TokenAlignment(NamedTuple):
    """Alignments with the fewest errors; all on the CPU.

    Attributes:
        partners: `(B, H)` int64, place of the reference token that a hypothesis token matches or replaces;
            -1 for an insertion and beyond the hypothesis. It increases along a row.
        matches: `(B,)` int64.
        substitutions: `(B,)` int64.
        deletions: `(B,)` int64, reference tokens without a partner.
        insertions: `(B,)` int64.
    """

    partners: Tensor
    matches: Tensor
    substitutions: Tensor
    deletions: Tensor
    insertions: Tensor

    @property
    def errors(self) -> Tensor:
        """`(B,)` edit distances."""
        return self.substitutions + self.deletions + self.insertions


def align_tokens(
    hypotheses: Tensor, hypothesis_lengths: Tensor, references: Tensor, reference_lengths: Tensor
) -> TokenAlignment:
    """Aligns every hypothesis with its reference (Wagner and Fischer, 1974).

    Of alignments with equally many errors one is always chosen in the same way: walking back from both ends,
    a match is preferred to a substitution, that to a deletion, that to an insertion.

    Args:
        hypotheses: `(B, H)` token ids, padded with anything.
        hypothesis_lengths: `(B,)` tokens; 0 is allowed, here and below.
        references: `(B, R)` token ids, padded with anything.
        reference_lengths: `(B,)` tokens.

    Returns:
        See `TokenAlignment`.
    """
    hyps, refs = hypotheses.detach().cpu().numpy(), references.detach().cpu().numpy()
    hyp_sizes, ref_sizes = hypothesis_lengths.cpu().numpy(), reference_lengths.cpu().numpy()
    distances = _distances(hyps, refs)
    partners, counts = _walk_back(distances, hyps, refs, hyp_sizes, ref_sizes)
    return TokenAlignment(torch.from_numpy(partners), *torch.from_numpy(counts))


def _distances(hyps: np.ndarray, refs: np.ndarray) -> np.ndarray:
    """`(H + 1, B, R + 1)` edit distances of all prefixes, a hypothesis token at a time."""
    batch, width = refs.shape
    steps = np.arange(width + 1, dtype=np.int32)
    table = np.empty((hyps.shape[1] + 1, batch, width + 1), np.int32)
    table[0] = steps
    for i in range(hyps.shape[1]):
        best = table[i] + 1  # insertion
        replaced = table[i, :, :-1] + (hyps[:, i, None] != refs)
        np.minimum(best[:, 1:], replaced, out=best[:, 1:])
        # A deletion costs one for each step to the right: the minimum over all columns before.
        table[i + 1] = np.minimum.accumulate(best - steps, axis=1) + steps
    return table


def _walk_back(
    table: np.ndarray, hyps: np.ndarray, refs: np.ndarray, hyp_sizes: np.ndarray, ref_sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Partners `(B, H)`, and `(4, B)` matches, substitutions, deletions and insertions."""
    rows = np.arange(len(hyps))
    i, j = hyp_sizes.astype(np.int64), ref_sizes.astype(np.int64)
    partners = np.full(hyps.shape, -1, np.int64)
    counts = np.zeros((4, len(hyps)), np.int64)
    while (i + j).any():
        here, i_before, j_before = table[i, rows, j], np.maximum(i - 1, 0), np.maximum(j - 1, 0)
        both = (i > 0) & (j > 0)
        equal = np.zeros(len(rows), bool)
        equal[both] = hyps[both, i_before[both]] == refs[both, j_before[both]]
        diagonal = both & (here == table[i_before, rows, j_before] + ~equal)
        deletion = ~diagonal & (j > 0) & (here == table[i, rows, j_before] + 1)
        insertion = ~diagonal & ~deletion & (i > 0)
        counts += np.stack([diagonal & equal, diagonal & ~equal, deletion, insertion])
        partners[rows[diagonal], i_before[diagonal]] = j_before[diagonal]
        i, j = i - (diagonal | insertion), j - (diagonal | deletion)
    return partners, counts
