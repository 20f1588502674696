"""Text in a batch plan: sentences alone, or beside speech in the same updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speechkit.config import check_range
from speechkit.files import hash_bytes

if TYPE_CHECKING:
    from speechkit.data.plan import BatchPlan, MicroBatch


@dataclass
class Config:
    """How the sentences of text sets are grouped, and how often they come beside speech."""

    tokens: int = 4000
    """Budget of a micro-batch in word pieces or other tokens: rows x longest."""
    sentences: int = 1024
    """Most sentences in a micro-batch."""
    micro_batches: int = 1
    """Micro-batches of text in an update, over all ranks and accumulation steps; a multiple of the ranks."""
    every: int = 1
    """Updates from one with text to the next, when there is speech; speech is in all of them."""
    bucket_ratio: float = 1.5
    """Longest over shortest sentence of a length bucket; sentences are shuffled inside a bucket."""
    min_tokens: int = 1
    """Shorter training sentences are left out and listed."""
    max_tokens: int = 510
    """Longer training sentences are left out and listed; a model may have fewer positions."""

    def __post_init__(self) -> None:
        check_range("tokens", self.tokens, 1)
        check_range("sentences", self.sentences, 1)
        check_range("micro_batches", self.micro_batches, 1)
        check_range("every", self.every, 1)
        check_range("bucket_ratio", self.bucket_ratio, 1.001)
        check_range("min_tokens", self.min_tokens, 1)
        check_range("max_tokens", self.max_tokens, self.min_tokens)


class MixedPlan:
    """Speech in every update, and text in every n-th: each micro-batch is of one or of the other.

    Epochs are those of the speech; the text has its own, which begin and end anywhere in them. What an update
    holds is a function of its number, as in the two plans. Text comes first in a row.

    Args:
        speech: its plan.
        text: its plan; row k belongs to update `every * k`.
        every: updates from one with text to the next.
    """

    def __init__(self, speech: BatchPlan, text: BatchPlan, every: int = 1) -> None:
        self.parts, self.every = [speech, text], every

    @property
    def starts(self) -> list[list[int]]:
        """First updates of the epochs planned so far, of speech and of text; see `BatchPlan`."""
        return [list(part.starts) for part in self.parts]

    @starts.setter
    def starts(self, values: Sequence[Sequence[int]]) -> None:
        for part, starts in zip(self.parts, values, strict=True):
            part.starts = list(starts)

    def row(self, update: int) -> list[MicroBatch]:
        """The global micro-batches of an update."""
        speech, text = self.parts
        number, rest = divmod(update, self.every)
        return [*(text.row(number) if rest == 0 else []), *speech.row(update)]

    def updates(self, epoch: int) -> int:
        """Updates in an epoch of the speech."""
        return self.parts[0].updates(epoch)

    def hash(self, epoch: int) -> str:
        """Hash of an epoch of the speech, and of the text's epoch that is on when it begins."""
        speech, text = self.parts
        beside, _ = text.locate(speech.begin(epoch) // self.every)
        return hash_bytes(speech.hash(epoch).encode(), text.hash(beside).encode())


class ChainedPlan:
    """Evaluation: all rows of one plan, then all of the next.

    Args:
        parts: plans of one pass.
    """

    def __init__(self, parts: Sequence[BatchPlan]) -> None:
        self.parts = list(parts)

    def row(self, update: int) -> list[MicroBatch]:
        """The micro-batches of a row."""
        for part in self.parts:
            if update < part.updates(0):
                return part.row(update)
            update -= part.updates(0)
        raise IndexError(update)

    def updates(self, epoch: int) -> int:
        """Rows of all plans."""
        return sum(part.updates(epoch) for part in self.parts)
