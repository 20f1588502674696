"""One text from two outputs: CTC's and that of cross entropy, whichever is surer of itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechkit.fusion import confidence
from speechkit.fusion.word_numbers import word_numbers
from speechkit.search.greedy import ctc_greedy
from speechkit.search.two_vocabularies import TwoVocabularies

Heads = dict[str, tuple[Tensor, Tensor]]


@dataclass
class Output:
    """What one output says of a batch.

    Attributes:
        ids: tokens of each utterance, in the units of the output.
        texts: the same in words.
        confidences: `(B,)` log confidences.
    """

    ids: list[list[int]]
    texts: list[str]
    confidences: Tensor


class FusedOutputs:
    """Reads the heads of a system that recognises by CTC and by cross entropy.

    In place of the second CTC an acoustic side may answer by position, as a head `hpos`.

    Args:
        config: how one is chosen.
        units: the two vocabularies.
        ctc: the head of CTC, `(B, T, V)` log-probabilities.
        ce: the head of the cross entropy, `(B, M, V')`.
    """

    def __init__(
        self, config: confidence.Config, units: TwoVocabularies, ctc: str = "ctc2", ce: str = "ce"
    ) -> None:
        self.config, self.units, self.ctc, self.ce = config, units, ctc, ce

    def outputs(self, heads: Heads) -> dict[str, Output]:
        """What each of the two says; only those that there are, the acoustic side first."""
        readers = {self.ctc: self._by_ctc, "hpos": self._by_ce, self.ce: self._by_ce}
        return {name: read(*heads[name]) for name, read in readers.items() if name in heads}

    def first(self, heads: Heads) -> Output | None:
        """What the first CTC says, to be compared with; None where there is but one."""
        return self._by_ctc(*heads["ctc"]) if "ctc" in heads and self.ctc != "ctc" else None

    def keeps_ce(self, outputs: dict[str, Output], errors: dict[str, Tensor] | None = None) -> Tensor:
        """`(B,)` bool, where the cross entropy is believed.

        Args:
            outputs: from `outputs`; with one of them missing the other is kept.
            errors: of each output `(B,)`, for `select: oracle`.
        """
        acoustic = next(iter(outputs))
        if len(outputs) == 1:
            return torch.full((len(outputs[acoustic].texts),), acoustic == self.ce)
        ctc, ce = outputs[acoustic].confidences, outputs[self.ce].confidences
        wrong = (errors[acoustic], errors[self.ce]) if errors else (None, None)
        return confidence.prefers_ce(self.config, ctc, ce, *wrong).cpu()

    def __call__(self, heads: Heads) -> dict[str, list[str]]:
        """The text that is kept, under an empty name, and that of every output."""
        outputs = self.outputs(heads)
        texts = {name: output.texts for name, output in outputs.items()}
        if "ctc" in heads and self.ctc != "ctc":
            texts["ctc"] = [self._decode(ids) for ids in self._greedy(*heads["ctc"])]
        kept = self.keeps_ce(outputs).tolist()
        pairs = zip(kept, outputs[next(iter(outputs))].texts, texts.get(self.ce, kept))
        return {"": [known if ce else heard for ce, heard, known in pairs], **texts}

    def _greedy(self, log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
        return ctc_greedy(log_probs, lengths, self.units.tokenizer.blank)

    def _decode(self, ids: list[int]) -> str:
        return self.units.tokenizer.decode(ids)

    def _by_ctc(self, log_probs: Tensor, lengths: Tensor) -> Output:
        tokenizer, config = self.units.tokenizer, self.config
        ids = self._greedy(log_probs, lengths)
        scores = confidence.ctc_scores(
            log_probs, lengths, config.confidence, config.ctc_temperature, tokenizer.blank
        )
        pieces = [[tokenizer.vocab[id_] for id_ in row] for row in ids]
        return Output(ids, [self._decode(row) for row in ids], self._mean(scores, pieces, tokenizer.kind))

    def _by_ce(self, log_probs: Tensor, lengths: Tensor) -> Output:
        vocab, config = self.units.vocab, self.config
        best = log_probs.argmax(-1).tolist() if log_probs.shape[1] else [[]] * len(lengths)
        # [UNK] stands for no word that could be right: where it is the answer, nothing is written.
        ids = [row[:size] for row, size in zip(best, lengths.tolist())]
        scores = confidence.ce_scores(log_probs, lengths, config.confidence, config.ce_temperature)
        pieces = [vocab.pieces(row) for row in ids]
        texts = [vocab.decode([id_ for id_ in row if id_]) for row in ids]
        return Output(ids, texts, self._mean(scores, pieces, "wordpiece"))

    def _mean(self, scores: confidence.Scores, pieces: list[list[str]], kind: str) -> Tensor:
        if self.config.unit == "word":
            scores = confidence.by_word(scores, word_numbers(pieces, kind), self.config.word)
        return scores.mean()
