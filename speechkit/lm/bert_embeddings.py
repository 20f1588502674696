"""Contextual embeddings of the tokens of texts: what a frozen BERT makes of whole, unmasked sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.files import hash_bytes, hash_json

if TYPE_CHECKING:
    from speechkit.encoders.bert import Bert
    from speechkit.text.bert_vocab import BertVocab

TOKENS = 8192
"""Tokens, padding included, that go through BERT at once."""

Specials = Literal["both", "sep_only", "none"]
"""Which of [CLS] and [SEP] stand around a sentence's tokens, and have embeddings like them."""


@dataclass
class Config:
    """Which embeddings."""

    layers: list[int] = field(default_factory=lambda: [-1])
    """Blocks whose outputs are averaged; -1 is the last one, 1 the first."""

    specials: Specials = "both"
    """`both`: [CLS] w_1 ... w_n [SEP]; `sep_only`: w_1 ... w_n [SEP]; `none`: the words alone."""

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

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], tokens: int = TOKENS) -> list[Tensor]:
        """`(U_i, E)` fp32 on the CPU for each text, in order.

        Args:
            texts: sentences; normalised as the vocabulary says.
            tokens: that go through BERT at once; changes speed and memory only.

        Raises:
            InputError: a text that BERT cannot read whole, with the text.
        """
        ids = [self.vocab.encode(text) for text in texts]
        room = self.bert.positions - 2
        for text, row in zip(texts, ids):
            if len(row) > room:
                raise InputError(
                    f"'{text[:60]}...': {len(row)} word pieces, and BERT has room for {room}; split the "
                    "utterance"
                )
        found: list[Tensor] = [torch.empty(0, self.dim)] * len(ids)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for start, end in _groups([len(ids[i]) + 2 for i in order], tokens):
            rows = order[start:end]
            for i, states in zip(rows, self._embed([ids[i] for i in rows])):
                found[i] = states
        return found

    def _embed(self, ids: list[list[int]]) -> list[Tensor]:
        device = self.bert.bert_ids.device
        lengths = torch.tensor([len(row) for row in ids], device=device)
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.int64) for row in ids], True)
        total: Tensor | None = None

        def between(number: int, states: Tensor) -> Tensor:
            nonlocal total
            if number in self.blocks:
                total = states if total is None else total + states
            return states

        words, lengths = self.bert.sequences(padded.to(device), lengths)
        self.bert.layers(self.bert.embed(words), lengths, between)
        states = (total / len(self.blocks)).float().cpu()
        return [row[self.config.around(size - 2)].clone() for row, size in zip(states, lengths.tolist())]


def _groups(sizes: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Spans of sizes, which grow, that fit the budget when all are padded to the longest."""
    groups, start = [], 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or sizes[end] * (end + 1 - start) > budget:
            groups.append((start, end))
            start = end
    return groups
