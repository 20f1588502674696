"""CTC's tokens as word pieces of a BERT, whether CTC speaks those pieces itself or units of its own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechkit.data.batch import Padded, pad
from speechkit.fusion.confidence import ctc_scores
from speechkit.fusion.word_numbers import word_numbers
from speechkit.search.greedy import Span, ctc_greedy_spans
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.char import SPACE
from speechkit.text.tokenizer import Tokenizer


class Piece(NamedTuple):
    """A token of a hypothesis.

    Attributes:
        id: linguistic.
        sure: log confidence.
        middle: of its frames.
    """

    id: int
    sure: float
    middle: float


class Recognised(NamedTuple):
    """What CTC recognised, as BERT reads it; on the CPU.

    Attributes:
        tokens: linguistic ids.
        clock: `(B, T)` float, the place of the token that a frame belongs to, from 0: whole at the middle of the
            token's frames, in between from there to the next.
        confidences: `(B, M)` log confidence of each: of its word, where a word was cut anew; minus infinity
            of [UNK], whose word BERT cannot read; 0 beyond.
    """

    tokens: Padded
    confidences: Tensor
    clock: Tensor


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
        spans = ctc_greedy_spans(log_probs, lengths, self.tokenizer.blank)
        scores = ctc_scores(log_probs, lengths, blank=self.tokenizer.blank)
        cut = self._pieces if self._table is not None else self._words
        rows = [cut(*pair) for pair in zip(spans, scores.values.tolist())]
        ids = pad([torch.tensor([piece.id for piece in row], dtype=torch.int64) for row in rows])
        sure = pad([torch.tensor([piece.sure for piece in row], dtype=log_probs.dtype) for row in rows]).values
        times = np.arange(log_probs.size(1))
        clock = [np.interp(times, [p.middle for p in row] or [0], range(max(len(row), 1))) for row in rows]
        return Recognised(ids, sure, torch.from_numpy(np.stack(clock)) if clock else sure.new_zeros(0, len(times)))

    def _pieces(self, spans: Sequence[Span], sure: Sequence[float]) -> list[Piece]:
        """CTC's own tokens, those that BERT has."""
        ids = [self._table[span.token] for span in spans]
        pieces = [Piece(id_, s, (span.start + span.end - 1) / 2) for id_, s, span in zip(ids, sure, spans)]
        return [piece._replace(sure=piece.sure if piece.id else -math.inf) for piece in pieces if piece.id >= 0]

    def _words(self, spans: Sequence[Span], sure: Sequence[float]) -> list[Piece]:
        """The words, each cut into BERT's pieces, which share its frames and its confidence."""
        names = [self.tokenizer.vocab[span.token] for span in spans]
        numbers = word_numbers([names], self.tokenizer.kind)[0].tolist()
        together: dict[int, float] = defaultdict(float)
        frames: dict[int, tuple[int, int]] = {}
        for number, name, span, s in zip(numbers, names, spans, sure):
            together[number] += s
            if name != SPACE:  # alone before the first word, it is none
                first = frames[number][0] if number in frames else span.start
                frames[number] = (first, span.end)
        words = self.tokenizer.decode([span.token for span in spans]).split()
        pieces = []
        for word, (number, (start, end)) in zip(words, frames.items()):
            ids = self.vocab.encode(word)
            step = (end - start) / max(len(ids), 1)
            for place, id_ in enumerate(ids):
                known = together[number] if id_ else -math.inf
                pieces.append(Piece(id_, known, start + (place + 0.5) * step - 0.5))
        return pieces

    def linguistic(self, ids: Sequence[int]) -> list[int]:
        """Linguistic ids of CTC's ids, blanks and repeats removed before."""
        return self.vocab.encode(self.tokenizer.decode(ids)) if self._table is None else self._shared(ids)

    def _shared(self, ids: Sequence[int]) -> list[int]:
        return [self._table[id_] for id_ in ids if self._table[id_] >= 0]
