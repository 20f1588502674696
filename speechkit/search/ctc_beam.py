"""CTC prefix beam search, batched over utterances, with lexicon and n-gram fusion.

Source: Graves (2008), section 7.5 (prefix search); Hannun et al. (2014), "First-pass large vocabulary
continuous speech recognition using bi-directional recurrent DNNs", algorithm 1 (beam with a language
model); Collobert et al. (2016), "Wav2Letter", section 2.3 and its decoder for scoring the words below a
trie node ahead of time ("smearing").
The search runs in numpy on the CPU, all utterances of the batch in the same array operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.lm.ngram import NgramLM
from speechkit.search.alignment import ctc_align
from speechkit.search.beam_finish import finish
from speechkit.search.beam_fusion import Fusion
from speechkit.search.beam_graph import Graph, OpenGraph, TokenGraph, TrieGraph
from speechkit.search.beam_state import Beams
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.lexicon import SEPARATOR, Lexicon, Trie

__all__ = ["CtcBeam", "CtcBeamConfig", "Hypothesis"]

SPECIAL_TOKENS = ("<blank>", "<unk>", "<sos/eos>", "<s>", "</s>", "<pad>")


@dataclass
class CtcBeamConfig:
    """Options of the CTC prefix beam search; scores are natural logarithms."""

    beam: int = 50
    """Hypotheses kept for each utterance."""
    beam_threshold: float = 20.0
    """Hypotheses worse than the best by more than this are dropped."""
    token_top: int | None = None
    """Only the best tokens of a frame extend hypotheses; None for all."""
    token_threshold: float = 12.0
    """Only tokens within this of the frame's best extend hypotheses."""
    lm_weight: float = 1.0
    """Factor of the language model's natural log probability."""
    word_bonus: float = 0.0
    """Added for every completed word (every token with lm_unit: token)."""
    unk_score: float = -10.0
    """Added for units the language model does not know; -.inf closes the vocabulary."""
    lm_unit: Literal["word", "token"] = "word"
    """What the language model's words are."""
    lookahead: bool = True
    """Score unfinished words by the best unigram among the words they can become."""
    end: bool = True
    """Score </s> at the end of the utterance."""
    nbest: int = 1
    """Hypotheses returned for each utterance, at most."""
    blank_skip: float = 1.0
    """Of a run of frames whose blank is more probable than this only one is decoded; 1 decodes all."""
    times: bool = False
    """Find the frames of every token, by forced alignment of the hypotheses."""

    def __post_init__(self) -> None:
        check_range("beam", self.beam, 1)
        check_range("nbest", self.nbest, 1, self.beam)
        for name in ("beam_threshold", "token_threshold", "lm_weight"):
            check_range(name, getattr(self, name), 0)
        check_range("blank_skip", self.blank_skip, 0.5, 1)
        if self.token_top is not None:
            check_range("token_top", self.token_top, 1)
        if not self.unk_score <= 0:
            raise ValueError(f"unk_score={self.unk_score} must not be above 0")


class CtcBeam:
    """A beam search that is ready to run; calling it decodes a batch.

    Without a lexicon any token sequence is allowed; a word-level language model then needs the
    separator `▁` among the tokens, and the words of the model spelt by its characters. With a lexicon
    only its words are; without a language model that is the lexicon-only search.

    Args:
        config: see `CtcBeamConfig`.
        vocab: token of every id.
        lexicon: allowed words, or None.
        lm: n-gram model of words or, with `lm_unit: token`, of tokens; or None.
        blank: id of the blank.

    Attributes:
        unknown: words of the lexicon (tokens of the vocabulary) that the language model does not know.

    Raises:
        InputError: the parts do not fit together.
    """

    def __init__(
        self,
        config: CtcBeamConfig,
        vocab: list[str],
        lexicon: Lexicon | None = None,
        lm: NgramLM | None = None,
        blank: int = 0,
    ) -> None:
        self.config, self.vocab, self.lm, self.blank = config, list(vocab), lm, blank
        self.forbidden = [i for i, token in enumerate(vocab) if token in SPECIAL_TOKENS and i != blank]
        tokens = config.lm_unit == "token" and lm is not None
        open_words = lexicon is None and lm is not None and not tokens
        if open_words:
            lexicon = _spell(lm, self.vocab)
        self.words = lexicon.words if lexicon else []
        units = self.vocab if tokens else [*self.words, "<unk>"]
        self.fusion = Fusion(lm, units, config.lm_weight, config.word_bonus, config.unk_score, config.end)
        self.unknown = [unit for unit in units[: None if tokens else -1] if lm and unit not in lm.index]
        trie = Trie(lexicon) if lexicon else None
        self.graph = self._graph(trie, tokens, open_words)
        self.look = self._look(trie, tokens, open_words)
        self.by_words = trie is not None and not open_words and not tokens

    def _graph(self, trie: Trie | None, tokens: bool, open_words: bool) -> Graph:
        if trie is None:
            return TokenGraph(self.blank, tokens)
        if open_words:
            allow = self.config.unk_score > -np.inf
            return OpenGraph(trie, len(self.words), allow, len(self.vocab), self.blank)
        return TrieGraph(trie, tokens)

    def _look(self, trie: Trie | None, tokens: bool, open_words: bool) -> np.ndarray:
        """What each node promises: the best score without context of the words below it."""
        look = np.zeros(self.graph.dead + 1)
        if trie is None or tokens or not self.config.lookahead:
            return look
        look[: len(trie)] = trie.best_below(self.fusion.alone)
        if open_words:
            look[self.graph.off] = self.fusion.alone[-1]
        look[self.graph.root] = 0.0
        return look

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Decodes a batch.

        Args:
            log_probs: `(B, T, V)` natural log probabilities, any float type and device.
            lengths: `(B,)` frames.

        Returns:
            For each utterance its hypotheses, best first: at least one, at most `nbest`.

        Raises:
            InputError: the shapes do not fit, or a value inside an utterance is NaN.
        """
        log_probs, lengths = log_probs.detach().cpu(), lengths.detach().cpu().long()
        self._check(log_probs, lengths)
        order = torch.argsort(lengths, descending=True, stable=True)
        values, counts = log_probs[order], lengths[order]
        if self.config.blank_skip < 1:
            values, counts = _skip_blanks(values, counts, self.blank, np.log(self.config.blank_skip))
            inner = torch.argsort(counts, descending=True, stable=True)
            order, values, counts = order[inner], values[inner], counts[inner]
        probs, floor = self._probabilities(values)
        beams = Beams(
            len(order),
            self.config.beam,
            self.graph,
            self.fusion,
            self.look,
            self.blank,
            self.config.beam_threshold,
        )
        active = (counts[None] > torch.arange(len(probs))[:, None]).sum(1).tolist()
        with np.errstate(divide="ignore"):
            for t, rows in enumerate(active):
                if rows:
                    beams.step(probs[t, :rows], floor[t, :rows])
            found = finish(beams, self.config.nbest, self.vocab, self.words if self.by_words else None)
        results: list[list[Hypothesis]] = [[] for _ in range(len(order))]
        for place, hypotheses in zip(order.tolist(), found):
            results[place] = hypotheses
        if self.config.times:
            _add_times(results, log_probs, lengths, self.blank)
        return results

    def _check(self, log_probs: Tensor, lengths: Tensor) -> None:
        shape = tuple(log_probs.shape)
        if log_probs.ndim != 3 or shape[2] != len(self.vocab) or lengths.shape != shape[:1]:
            raise InputError(
                f"log_probs {shape} and lengths {tuple(lengths.shape)}: "
                f"expected (B, T, {len(self.vocab)}) and (B,)"
            )
        if len(lengths) and (lengths.min() < 0 or lengths.max() > shape[1]):
            raise InputError(f"lengths {lengths.tolist()} must be between 0 and {shape[1]} frames")
        inside = torch.arange(shape[1]) < lengths[:, None]
        if (log_probs.isnan().any(-1) & inside).any():
            row = int((log_probs.isnan().any(-1) & inside).any(1).nonzero()[0])
            raise InputError(f"log_probs of utterance {row} of the batch are NaN")

    def _probabilities(self, log_probs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities `(T, B, V)`, and what a token needs to extend a hypothesis `(T, B)`.

        The floor is 2 in frames where no token but blank reaches it. Probabilities below the smallest
        normal float count as that one, those of impossible tokens are 0.
        """
        if log_probs.dtype not in (torch.float32, torch.float64):
            log_probs = log_probs.float()
        log_probs = log_probs.transpose(0, 1).contiguous()
        log_probs[..., self.forbidden] = -torch.inf
        lowest = {torch.float32: -85.0, torch.float64: -165.0}[log_probs.dtype]
        floor = log_probs.amax(-1) - self.config.token_threshold
        if self.config.token_top is not None and self.config.token_top < len(self.vocab):
            floor = torch.maximum(floor, log_probs.topk(self.config.token_top).values[..., -1])
        floor = floor.clamp(min=lowest)
        probs = log_probs.clamp(min=lowest).exp().masked_fill(log_probs == -torch.inf, 0.0)
        floor = floor.exp()
        others = torch.cat([probs[..., : self.blank], probs[..., self.blank + 1 :]], -1)
        floor = floor.masked_fill(others.amax(-1) < floor, 2.0)
        return probs.numpy(), floor.numpy()


def _spell(lm: NgramLM, vocab: list[str]) -> Lexicon:
    """The words of a language model spelt by characters."""
    ids = {token: number for number, token in enumerate(vocab)}
    if SEPARATOR not in ids:
        raise InputError(
            f"a word language model without a lexicon needs the token {SEPARATOR} between words; "
            "give a lexicon, or a language model of tokens with lm_unit: token"
        )
    words, dropped, spellings = [], [], []
    for word in lm.words:
        if word in SPECIAL_TOKENS:
            continue
        if all(letter in ids for letter in word):
            spellings.append((len(words), tuple(ids[letter] for letter in word)))
            words.append(word)
        else:
            dropped.append(word)
    return Lexicon(words, spellings, ids[SEPARATOR], dropped)


def _skip_blanks(log_probs: Tensor, lengths: Tensor, blank: int, limit: float) -> tuple[Tensor, Tensor]:
    """Leaves one frame of every run whose blank is above the limit: repeated tokens stay apart."""
    inside = torch.arange(log_probs.shape[1]) < lengths[:, None]
    sure = log_probs[..., blank] > limit
    again = torch.zeros_like(sure)
    again[:, 1:] = sure[:, 1:] & sure[:, :-1]
    keep = inside & ~again
    order = torch.argsort(~keep, dim=1, stable=True)  # kept frames first, in their order
    counts = keep.sum(1)
    order = order[:, : int(counts.max()) if len(counts) else 0]
    return log_probs.gather(1, order[..., None].expand(-1, -1, log_probs.shape[2])), counts


def _add_times(results: list[list[Hypothesis]], log_probs: Tensor, lengths: Tensor, blank: int) -> None:
    flat = [(row, hypothesis) for row, found in enumerate(results) for hypothesis in found]
    rows = torch.tensor([row for row, _ in flat], dtype=torch.long)
    counts = torch.tensor([len(hypothesis.tokens) for _, hypothesis in flat], dtype=torch.long)
    tokens = torch.full((len(flat), max(counts.tolist(), default=0)), blank)
    for line, (_, hypothesis) in zip(tokens, flat):
        line[: len(hypothesis.tokens)] = torch.tensor(hypothesis.tokens, dtype=torch.long)
    for (_, hypothesis), aligned in zip(
        flat, ctc_align(log_probs[rows], lengths[rows], tokens, counts, blank)
    ):
        hypothesis.spans = aligned.spans
