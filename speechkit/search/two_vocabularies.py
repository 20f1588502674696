"""CTC's tokens as word pieces of a BERT, whether CTC speaks those pieces itself or units of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from speechkit.data.batch import Padded, pad
from speechkit.fusion.confidence import by_word, ctc_scores
from speechkit.fusion.word_numbers import word_numbers
from speechkit.layers.masks import padding_mask
from speechkit.search.greedy import ctc_greedy
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.tokenizer import Tokenizer


class Recognised(NamedTuple):
    """What CTC recognised, as BERT reads it; on the CPU.

    Attributes:
        tokens: linguistic ids.
        confidences: `(B, M)` log confidence of each: of its word, where a word was cut anew; minus infinity
            of [UNK], whose word BERT cannot read; 0 beyond.
    """

    tokens: Padded
    confidences: Tensor


class TwoVocabularies:
    """The units of CTC and the linguistic vocabulary.

    Args:
        tokenizer: of CTC.
        vocab: of BERT's branch.
        shared: CTC speaks BERT's pieces, id for id; else what it recognised is cut into them again.

    Attributes:
        tokenizer, vocab: as given.
        ctc_size: V, the blank included.

    Raises:
        InputError: units that are to be shared are not the same.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: BertVocab, shared: bool) -> None:
        self.tokenizer, self.vocab = tokenizer, vocab
        self.ctc_size = len(tokenizer)
        self._table = vocab.shared_ids(tokenizer) if shared else None

    def recognised(self, log_probs: Tensor, lengths: Tensor) -> Recognised:
        """The greedy hypotheses in linguistic ids, and how sure CTC is of each.

        Args:
            log_probs: `(B, T, V)` of CTC.
            lengths: `(B,)` frames.
        """
        log_probs, lengths = log_probs.detach().cpu(), lengths.cpu()
        hypotheses = ctc_greedy(log_probs, lengths, self.tokenizer.blank)
        scores = ctc_scores(log_probs, lengths, blank=self.tokenizer.blank)
        if self._table is None:
            pieces = [[self.tokenizer.vocab[id_] for id_ in ids] for ids in hypotheses]
            scores = by_word(scores, word_numbers(pieces, self.tokenizer.kind))
        sure = [row[:n].tolist() for row, n in zip(scores.values, scores.lengths.tolist())]
        rows = [self._row(*pair) for pair in zip(hypotheses, sure)]
        tokens = pad([torch.tensor([id_ for id_, _ in row], dtype=torch.int64) for row in rows])
        confidences = pad([torch.tensor([sure for _, sure in row], dtype=log_probs.dtype) for row in rows])
        inside = ~padding_mask(tokens.lengths, tokens.values.size(1))
        return Recognised(tokens, confidences.values.masked_fill(inside & (tokens.values == 0), -torch.inf))

    def _row(self, ids: Sequence[int], confidences: Sequence[float]) -> list[tuple[int, float]]:
        """Linguistic ids of a hypothesis, each with its confidence."""
        if self._table is not None:
            return list(zip(self._shared(ids), confidences))
        words = self.tokenizer.decode(ids).split()
        # A space before the first word has a confidence of its own, and is no word.
        pairs = zip(words, confidences[len(confidences) - len(words) :])
        return [(id_, sure) for word, sure in pairs for id_ in self.vocab.encode(word)]

    def linguistic(self, ids: Sequence[int]) -> list[int]:
        """Linguistic ids of CTC's ids, blanks and repeats removed before."""
        return self.vocab.encode(self.tokenizer.decode(ids)) if self._table is None else self._shared(ids)

    def _shared(self, ids: Sequence[int]) -> list[int]:
        return [self._table[id_] for id_ in ids if self._table[id_] >= 0]
