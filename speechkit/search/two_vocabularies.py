"""CTC's tokens as word pieces of a BERT, whether CTC speaks those pieces itself or units of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechkit.data.batch import Padded, pad
from speechkit.errors import InputError
from speechkit.search.greedy import Span, ctc_greedy_spans
from speechkit.search.lexicon import Lexicon
from speechkit.search.word_spans import words_of
from speechkit.search.word_tree import WordTree
from speechkit.text.bert_vocab import BertVocab
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
        confidences: `(B, M)` log confidence of each: of its word, where a word was cut anew; minus infinity
            of [UNK], whose word BERT cannot read; 0 beyond.
        clock: `(B, T)` float, the place of the token that a frame belongs to, from 0: whole at the middle of
            the token's frames, in between from there to the next.
        scores: `(B, M, V')` of all words in the frames of each token, see `speechkit.search.word_tree`;
            only where words are searched for.
    """

    tokens: Padded
    confidences: Tensor
    clock: Tensor
    scores: Tensor | None = None


Units = Literal["shared", "retokenised", "words"]
"""How CTC's tokens become BERT's pieces. `shared`: CTC speaks these pieces; `retokenised`: it speaks units of
its own, and what its best path spells is cut into pieces again; `words`: it speaks units of its own, and of
all sequences of BERT's whole words the most probable one is looked for (for some thousand words; every frame
looks at all beginnings of words)."""

PRICE = 4.0
"""Of a word in that search, in natural logarithms; without it short words would fill every gap."""

TEMPERATURE = 2.0
"""Scores are divided by it before they are confidences: CTC's frames are no independent witnesses."""


class TwoVocabularies:
    """The units of CTC and the linguistic vocabulary.

    Args:
        tokenizer: of CTC.
        vocab: of BERT's branch.
        units: see `Units`.

    Attributes:
        tokenizer, vocab: as given.
        ctc_size: V, the blank included.

    Raises:
        InputError: units that are to be shared are not the same, or no word of BERT can be spelt.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: BertVocab, units: Units) -> None:
        self.tokenizer, self.vocab = tokenizer, vocab
        self.ctc_size = len(tokenizer)
        self._table = vocab.shared_ids(tokenizer) if units == "shared" else None
        self._tree = None
        if units == "words":
            lexicon = Lexicon.from_words(vocab.whole_words(), tokenizer)
            if lexicon.separator is None:
                raise InputError(
                    f"units=words: needs a tokenizer that writes spaces, such as char, not {tokenizer.kind}"
                )
            spelt = {vocab.encode(lexicon.words[word])[0]: tokens for word, tokens in lexicon.spellings}
            spellings = [spelt.get(id_) for id_ in range(len(vocab))]
            self._tree = WordTree(spellings, lexicon.separator, tokenizer.blank)

    def recognised(self, log_probs: Tensor, lengths: Tensor) -> Recognised:
        """The hypotheses in linguistic ids, and how sure CTC is of each token.

        Args:
            log_probs: `(B, T, V)` of CTC.
            lengths: `(B,)` frames.
        """
        log_probs, lengths = log_probs.detach().cpu(), lengths.cpu()
        if log_probs.dtype == torch.bfloat16:
            log_probs = log_probs.float()
        scores = None
        if self._tree is not None:
            rows, found = self._searched(log_probs, lengths)
            scores = pad(found).values if found else log_probs.new_zeros(0, 0, len(self.vocab))
        else:
            cut = self._words if self._table is None else self._pieces
            found = ctc_greedy_spans(log_probs, lengths, self.tokenizer.blank)
            rows = [cut(spans, _confidences(spans, values)) for spans, values in zip(found, log_probs)]
        ids = pad([torch.tensor([piece.id for piece in row], dtype=torch.int64) for row in rows])
        sure = pad(
            [torch.tensor([piece.sure for piece in row], dtype=log_probs.dtype) for row in rows]
        ).values
        times = np.arange(log_probs.size(1))
        clock = [np.interp(times, [p.middle for p in row] or [0], range(max(len(row), 1))) for row in rows]
        clock = torch.from_numpy(np.stack(clock)) if clock else sure.new_zeros(0, len(times))
        return Recognised(ids, sure, clock, scores)

    def _pieces(self, spans: Sequence[Span], sure: Sequence[float]) -> list[Piece]:
        """CTC's own tokens, those that BERT has."""
        ids = [self._table[span.token] for span in spans]
        pieces = [Piece(id_, s, (span.start + span.end - 1) / 2) for id_, s, span in zip(ids, sure, spans)]
        return [
            piece._replace(sure=piece.sure if piece.id else -math.inf) for piece in pieces if piece.id >= 0
        ]

    def _words(self, spans: Sequence[Span], sure: Sequence[float]) -> list[Piece]:
        """The words, each cut into BERT's pieces, which share its frames and its confidence."""
        pieces = []
        for text, places, start, end in words_of(spans, self.tokenizer):
            ids = self.vocab.encode(text)
            step, known = (end - start) / max(len(ids), 1), sum(sure[place] for place in places)
            for place, id_ in enumerate(ids):
                middle = start + (place + 0.5) * step - 0.5
                pieces.append(Piece(id_, known if id_ else -math.inf, middle))
        return pieces

    def _searched(self, log_probs: Tensor, lengths: Tensor) -> tuple[list[list[Piece]], list[Tensor]]:
        """The words of the best rows, and of each utterance the scores of all words at each of them."""
        values = log_probs.numpy()
        found = self._tree.best_rows(values, lengths.numpy(), PRICE)
        words = [word for row in found for word in row]
        first = np.repeat(np.arange(len(found)) * values.shape[1], [len(row) for row in found])
        starts, ends = np.array([word[1:] for word in words], np.int64).reshape(-1, 2).T + first
        scores = torch.from_numpy(self._tree.scores(values.reshape(-1, values.shape[2]), starts, ends))
        own = torch.tensor([word.word for word in words], dtype=torch.int64)
        sure = (scores / TEMPERATURE).log_softmax(1).gather(1, own[:, None])[:, 0].tolist()
        pieces = iter(Piece(w.word, s, (w.start + w.end - 1) / 2) for w, s in zip(words, sure))
        rows = [list(itertools.islice(pieces, len(row))) for row in found]
        return rows, list(scores.split([len(row) for row in found]))

    def linguistic(self, ids: Sequence[int]) -> list[int]:
        """Linguistic ids of CTC's ids, blanks and repeats removed before."""
        return self.vocab.encode(self.tokenizer.decode(ids)) if self._table is None else self._shared(ids)

    def _shared(self, ids: Sequence[int]) -> list[int]:
        return [self._table[id_] for id_ in ids if self._table[id_] >= 0]


def _confidences(spans: Sequence[Span], log_probs: Tensor) -> list[float]:
    """Log probability of each token in the surest of its frames; `(T, V)` log-probabilities."""
    return [float(log_probs[span.start : span.end, span.token].max()) for span in spans]
