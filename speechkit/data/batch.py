"""The batch: the only thing a model sees."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Padded:
    """Sequences of differing lengths in one tensor.

    Attributes:
        values: `(B, T)`, `(B, T, D)` or `(B, T, H, W, 3)`, what lies beyond a length is padding of any
            content.
        lengths: `(B,)` int64 on the same device, in the unit of axis 1 of `values`.
    """

    values: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> Padded:
        """The same on a device."""
        return Padded(self.values.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True))


@dataclass
class Batch:
    """Utterances with their named fields.

    Attributes:
        ids: utterance ids, `B` of them.
        keys: `(B,)` int64 on the CPU, a hash of seed, epoch and utterance: masks, SpecAugment and
            sampling draw from generators seeded with it, so that an utterance is treated the same
            in any batch.
        languages: language codes, or None.
        fields: name -> Padded. Names in use: `speech` (samples), `features` (frames), `tokens`
            (targets), `words`, `bert_tokens`, `phones`, `kmeans`, `video`.
    """

    ids: list[str]
    keys: Tensor
    languages: list[str] | None = None
    fields: dict[str, Padded] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Padded:
        return self.fields[name]

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device; `keys` stay on the CPU, where generators are seeded."""
        return replace(self, fields={name: padded.to(device) for name, padded in self.fields.items()})


def pad(sequences: list[Tensor], value: float = 0) -> Padded:
    """Stacks `(T_i, ...)` tensors into one `(B, max T_i, ...)`.

    Args:
        sequences: at least one tensor; equal trailing shapes and dtypes, but of those without a row.
        value: what fills the padding.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    longest = sequences[int(lengths.argmax())]
    values = torch.full((len(sequences), *longest.shape), value, dtype=longest.dtype)
    for row, sequence in zip(values, sequences):
        if len(sequence):
            row[: len(sequence)] = sequence
    return Padded(values, lengths)
