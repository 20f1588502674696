"""Groups of words that only context tells apart, such as homophones: how often a BERT tells them apart.

Each occurrence is masked alone, with all other words in sight, and the model chooses among the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.layers.masks import padding_mask
from speechkit.text.reading import read_utf8

if TYPE_CHECKING:
    from speechkit.encoders.bert import Bert
    from speechkit.text.bert_vocab import BertVocab


def read_groups(path: str | Path) -> list[list[str]]:
    """Reads a file of word groups, one a line, words between spaces; blank lines are skipped.

    Raises:
        InputError: no such file, a group of one word, or a word that is there twice; names file:line.
    """
    groups, seen = [], {}
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        words = line.split()
        if len(words) == 1:
            raise InputError(f"{path}:{number}: '{words[0]}' alone is no group; put its words on one line")
        for word in words:
            if word in seen:
                raise InputError(f"{path}:{number}: '{word}' stands in line {seen[word]} already")
            seen[word] = number
        groups += [words] if words else []
    return groups


class WordGroups:
    """Groups of linguistic ids.

    Args:
        groups: the words; those that are not one piece of the vocabulary cannot be asked about.
        vocab: the linguistic vocabulary.

    Attributes:
        left_out: words that cannot be asked about, and those that are then alone in their group.

    Raises:
        InputError: no group is left.
    """

    def __init__(self, groups: Sequence[Sequence[str]], vocab: BertVocab) -> None:
        ids = {word: vocab.encode(word) for group in groups for word in group}
        known = [[word for word in group if len(ids[word]) == 1 and any(ids[word])] for group in groups]
        kept = [group for group in known if len(group) > 1]
        if not kept:
            raise InputError(
                f"none of the {len(groups)} word groups has two words that are one piece of the "
                "vocabulary each"
            )
        inside = {word for group in kept for word in group}
        self.left_out = [word for group in groups for word in group if word not in inside]
        width = max(map(len, kept))
        rows = [[ids[word][0] for word in group] for group in kept]
        self.members = torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])
        self.group_of = torch.full((len(vocab),), -1)
        for number, row in enumerate(rows):
            self.group_of[row] = number

    def count(self, tokens: Tensor, lengths: Tensor) -> int:
        """How many of the `(B, M)` linguistic ids are words of a group."""
        return int(self._found(tokens, lengths).sum())

    def _found(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        padding = padding_mask(lengths, tokens.size(1))
        groups = self.group_of.to(tokens.device)[tokens.masked_fill(padding, 0)]
        return (groups >= 0) & ~padding

    def correct(self, bert: Bert, tokens: Tensor, lengths: Tensor) -> Tensor:
        """How many of them the model chooses among their group: `()` int64.

        Args:
            bert: in eval mode.
            tokens: `(B, M)` linguistic ids, padded with anything.
            lengths: `(B,)`.
        """
        rows, places = self._found(tokens, lengths).nonzero(as_tuple=True)
        ids, sizes = bert.sequences(tokens, lengths)
        right = torch.zeros((), dtype=torch.int64, device=tokens.device)
        for some, at in zip(rows.split(len(tokens)), places.split(len(tokens))):
            right += self._correct(bert, tokens[some, at], ids[some], sizes[some], at + 1)
        return right

    def _correct(self, bert: Bert, truth: Tensor, ids: Tensor, sizes: Tensor, places: Tensor) -> Tensor:
        """The same for one masked place in each row."""
        every = torch.arange(len(ids), device=ids.device)
        hidden = ids.scatter(1, places[:, None], bert.mask_id)
        logits = bert.head(bert(hidden, sizes)[every, places])
        members = self.members.to(ids.device)[self.group_of.to(ids.device)[truth]]
        scores = logits.gather(1, members.clamp(min=0)).masked_fill(members < 0, -torch.inf)
        return (members[every, scores.argmax(1)] == truth).sum()
