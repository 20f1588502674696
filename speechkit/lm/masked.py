"""How probable a masked language model finds a text: its pseudo-log-likelihood.

Source: Salazar et al. (2020), "Masked Language Model Scoring", equation 1:
PLL(y) = sum_i log P(y_i | y with y_i masked). [CLS] and [SEP] stand around the text, are never masked and
never scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from speechkit.encoders.bert import Bert
    from speechkit.text.bert_vocab import BertVocab

TOKENS = 8192
"""Tokens of masked copies, padding included, that go through BERT at once."""
LOGITS = 1 << 25
"""Values, at most, that BERT's head puts out at once."""


class TextScore(NamedTuple):
    """What BERT makes of a text.

    Attributes:
        log_prob: pseudo-log-likelihood, natural logarithm; 0 of an empty text.
        pieces: how many pieces it is the sum over.
        unknown: how many of them are [UNK].
    """

    log_prob: float
    pieces: int
    unknown: int


@dataclass
class _Copy:
    """A text with one piece masked.

    Attributes:
        ids: BERT's ids, with [CLS] and [SEP].
        place: of the mask.
        asked: number of a text, and the piece that it has there.
    """

    ids: tuple[int, ...]
    place: int
    asked: list[tuple[int, int]] = field(default_factory=list)


class MaskedLM:
    """A BERT that scores texts and remembers them.

    Args:
        bert: in eval mode, on its device.
        vocab: the vocabulary that its head is restricted to.
        tokens: see `pseudo_log_likelihood`.

    Attributes:
        cache: text -> its score; clear it to forget.
    """

    def __init__(self, bert: Bert, vocab: BertVocab, tokens: int = TOKENS) -> None:
        self.bert, self.vocab, self.tokens = bert, vocab, tokens
        self.cache: dict[str, TextScore] = {}

    def __call__(self, texts: Sequence[str]) -> list[TextScore]:
        """The scores of some texts; each is computed once, and all new ones together."""
        new = [text for text in dict.fromkeys(texts) if text not in self.cache]
        pieces = [self.vocab.encode(text) for text in new]
        found = pseudo_log_likelihood(self.bert, pieces, self.tokens)
        for text, ids, log_prob in zip(new, pieces, found):
            self.cache[text] = TextScore(log_prob, len(ids), ids.count(self.vocab.unk))
        return [self.cache[text] for text in texts]


@torch.no_grad()
def pseudo_log_likelihood(
    bert: Bert, sequences: Sequence[Sequence[int]], tokens: int = TOKENS
) -> list[float]:
    """Scores texts by masking each of their pieces in turn.

    The masked copies of all texts go through BERT together, sorted by length, and those that are equal (of
    texts that differ in one piece) once; only the masked position goes through the head. [UNK] is scored
    like any other piece. In a text that is longer than BERT's positions each piece is seen amid as many
    others as BERT takes.

    Args:
        bert: in eval mode.
        sequences: linguistic ids of each text, without [CLS] and [SEP].
        tokens: of masked copies, padding included, that go through BERT at once.

    Returns:
        The pseudo-log-likelihood of each, in natural logarithms; 0 of an empty one.
    """
    totals = [0.0] * len(sequences)
    copies = sorted(_copies(bert, sequences), key=lambda copy: len(copy.ids))
    for group in _groups(copies, tokens, len(bert.bert_ids)):
        asked = [(row, id_, text) for row, copy in enumerate(group) for text, id_ in copy.asked]
        rows, ids, texts = zip(*asked)
        log_probs = _log_probs(bert, group)[list(rows), list(ids)].double()
        for text, value in zip(texts, log_probs.tolist()):
            totals[text] += value
    return totals


def _copies(bert: Bert, sequences: Sequence[Sequence[int]]) -> list[_Copy]:
    """All different masked copies."""
    found: dict[tuple[tuple[int, ...], int], _Copy] = {}
    table, room = bert.bert_ids.tolist(), bert.positions - 2
    for number, sequence in enumerate(sequences):
        ids = [table[id_] for id_ in sequence]
        for i, id_ in enumerate(sequence):
            start = max(0, min(i - room // 2, len(ids) - room))
            seen = [*ids[start:i], bert.mask_id, *ids[i + 1 : start + room]]
            key = ((bert.cls_id, *seen, bert.sep_id), i - start + 1)
            found.setdefault(key, _Copy(*key)).asked.append((number, id_))
    return list(found.values())


def _groups(copies: Sequence[_Copy], tokens: int, pieces: int) -> Iterator[list[_Copy]]:
    """Copies, shortest first, in groups of so many tokens and of LOGITS values; at least one in each."""
    group: list[_Copy] = []
    for copy in copies:
        count = len(group) + 1
        if group and (count * len(copy.ids) > tokens or count * pieces > LOGITS):
            yield group
            group = []
        group.append(copy)
    if group:
        yield group


def _log_probs(bert: Bert, group: Sequence[_Copy]) -> Tensor:
    """`(N, V')` log-probabilities of every piece at the mask of each copy."""
    device = bert.bert_ids.device
    lengths = torch.tensor([len(copy.ids) for copy in group])
    width = int(lengths.max())
    ids = torch.tensor([[*copy.ids, *[bert.pad_id] * (width - len(copy.ids))] for copy in group])
    states = bert(ids.to(device), lengths.to(device))
    places = torch.tensor([copy.place for copy in group], device=device)
    logits = bert.head(states[torch.arange(len(group), device=device), places])
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
