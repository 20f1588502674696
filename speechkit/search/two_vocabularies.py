"""CTC's tokens as word pieces of a BERT, whether CTC speaks those pieces itself or units of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechkit.data.batch import Padded, pad
from speechkit.search.greedy import ctc_greedy
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.tokenizer import Tokenizer


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

    def recognised(self, log_probs: Tensor, lengths: Tensor) -> Padded:
        """The greedy hypotheses in linguistic ids, on the CPU.

        Args:
            log_probs: `(B, T, V)` of CTC.
            lengths: `(B,)` frames.
        """
        rows = [self.linguistic(ids) for ids in ctc_greedy(log_probs, lengths, self.tokenizer.blank)]
        return pad([torch.tensor(row, dtype=torch.int64) for row in rows])

    def linguistic(self, ids: Sequence[int]) -> list[int]:
        """Linguistic ids of CTC's ids, blanks and repeats removed before."""
        if self._table is None:
            text = self.tokenizer.decode(ids)
            return self.vocab.encode(text) if text else []
        return [self._table[id_] for id_ in ids if self._table[id_] >= 0]
