"""Contextual embeddings of the tokens of texts: what a frozen BERT makes of whole, unmasked sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.files import hash_bytes, hash_json
from speechkit.text.wordpiece import Specials

if TYPE_CHECKING:
    from speechkit.encoders.bert import Bert
    from speechkit.text.bert_vocab import BertVocab

TOKENS = 8192
"""Tokens, padding included, that go through BERT at once."""


@dataclass
class Config:
    """Which embeddings."""

    layers: list[int] = field(default_factory=lambda: [-1])
    """Blocks whose outputs are averaged; -1 is the last one, 1 the first."""

    specials: Specials = "both"
    """Which of [CLS] and [SEP] have embeddings beside the words; BERT reads both in any case."""

    def __post_init__(self) -> None:
        if not self.layers or 0 in self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers={self.layers} must be different blocks, counted from 1 or from -1")

    def chosen(self, count: int) -> list[int]:
        """The blocks, from 0, of a BERT that has so many; ValueError for one that it does not have."""
        for layer in self.layers:
            check_range("layers", layer, -count, count)
        return [layer - 1 if layer > 0 else count + layer for layer in self.layers]

    def around(self, count: int) -> slice:
        """Which of [CLS], so many tokens, [SEP] are kept."""
        begin, end = {"both": (0, 2), "sep_only": (1, 2), "none": (1, 1)}[self.specials]
        return slice(begin, count + end)


class Embedder:
    """A BERT in evaluation mode, never trained.

    Args:
        bert: on its device.
        vocab: all of its pieces.
        config: see `Config`.

    Attributes:
        dim: E.
        identity: equal for the same weights, tokens and configuration.

    Raises:
        ValueError: a block that this BERT does not have.
    """

    def __init__(self, bert: Bert, vocab: BertVocab, config: Config) -> None:
        self.bert, self.vocab, self.config, self.dim = bert.eval(), vocab, config, bert.dim
        self.blocks = config.chosen(len(bert.layer_modules))
        state = {name: value for name, value in bert.state_dict().items() if "cls.predictions" not in name}
        weights = hash_bytes(*(state[name].cpu().numpy().tobytes() for name in sorted(state)))
        self.identity = hash_json([weights, vocab.hash, sorted(self.blocks), config.specials])

    def __call__(self, texts: Sequence[str], tokens: int = TOKENS) -> list[Tensor]:
        """`(U_i, E)` fp32 on the CPU for each text, in order; see `of_ids`.

        Args:
            texts: sentences; normalised as the vocabulary says.
            tokens: that go through BERT at once.
        """
        table = self.vocab.bert_ids
        return self.of_ids([[table[k] for k in self.vocab.encode(text)] for text in texts], tokens)

    @torch.no_grad()
    def of_ids(self, ids: Sequence[Sequence[int]], tokens: int = TOKENS) -> list[Tensor]:
        """The same of sentences that are cut already.

        Args:
            ids: BERT's own ids of each sentence, without [CLS] and [SEP].
            tokens: that go through BERT at once; changes speed and memory only.

        Raises:
            InputError: a sentence that BERT cannot read whole, with its beginning.
        """
        room = self.bert.positions - 2
        for row in ids:
            if len(row) > room:
                begin = " ".join(self.vocab.vocab[k] for k in row[:10])
                raise InputError(f"'{begin} ...': {len(row)} word pieces, and BERT has room for {room}")
        found: list[Tensor] = [torch.empty(0, self.dim)] * len(ids)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for start, end in _groups([len(ids[i]) + 2 for i in order], tokens):
            rows = order[start:end]
            for i, states in zip(rows, self._embed([ids[i] for i in rows])):
                found[i] = states
        return found

    def _embed(self, ids: list[Sequence[int]]) -> list[Tensor]:
        bert, device = self.bert, self.bert.bert_ids.device
        rows = [torch.tensor([bert.cls_id, *row, bert.sep_id]) for row in ids]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        padded = torch.nn.utils.rnn.pad_sequence(rows, True, padding_value=bert.pad_id).to(device)
        total: Tensor | None = None

        def between(number: int, states: Tensor) -> Tensor:
            nonlocal total
            if number in self.blocks:
                total = states if total is None else total + states
            return states

        bert.layers(bert.embed(padded), lengths, between)
        states = (total / len(self.blocks)).float().cpu()
        return [row[self.config.around(len(own))].clone() for row, own in zip(states, ids)]


def _groups(sizes: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Spans of sizes, which grow, that fit the budget when all are padded to the longest."""
    groups, start = [], 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or sizes[end] * (end + 1 - start) > budget:
            groups.append((start, end))
            start = end
    return groups
