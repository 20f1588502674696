"""Beam search of attention decoders with CTC, and a language model of their tokens where one is given."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from torch import Tensor

from speechkit.decoding.resources import Resources
from speechkit.errors import InputError
from speechkit.lm.neural import LmReading
from speechkit.lm.ngram import NgramLM
from speechkit.search.attention_beam import AttentionBeam, AttentionBeamConfig
from speechkit.search.beam_fusion import Fusion
from speechkit.search.ctc_beam import SPECIAL_TOKENS
from speechkit.search.hypothesis import Hypothesis


@dataclass
class Config(AttentionBeamConfig):
    """Options of the search; the language model counts only where one is given. `beam: 1` is greedy."""

    name: str = "attention_beam"
    """The search's kind."""
    head: str = "frames"
    """The model head that the decoder attends to."""


class Beam:
    """Attention beam search; what did not end is counted, and told for each batch in which there is more.

    Attributes:
        searched: utterances so far.
        cut: of these, whose best hypothesis did not end, and was cut off at the longest length.
        failed: of these, for which nothing was found.
    """

    def __init__(self, config: Config, resources: Resources) -> None:
        if resources.lexicon_path:
            raise InputError("the search attention_beam takes no --lexicon; its units are the tokens")
        if not hasattr(resources.model, "reading"):
            raise InputError("search.name=attention_beam: the model has no attention decoder; see ctc_beam")
        self.config, self.model, self.tokenizer = config, resources.model, resources.assets.tokenizer
        vocab, eos, blank = self.tokenizer.vocab, self.tokenizer.eos, self.tokenizer.blank
        never = [i for i, token in enumerate(vocab) if token in SPECIAL_TOKENS and i != eos]
        ngram, self.neural = resources.token_lm()
        lm = token_fusion(config, vocab, ngram) if ngram is not None else None
        self.beam = AttentionBeam(config, eos, blank, never, lm)
        self.searched = self.cut = self.failed = 0

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        weight, log_probs = self.config.ctc_weight, None
        if weight:
            if "ctc" not in heads:
                raise InputError(
                    f"search.ctc_weight={weight}: the model was trained without CTC; set ctc_weight=0"
                )
            log_probs = heads["ctc"][0]
        lengths = heads[self.config.head][1]
        networks = [(self.model.reading(heads), 1 - weight)]
        if self.neural is not None:
            networks.append((LmReading(self.neural), self.config.lm_weight))
        found = self.beam(networks, lengths, log_probs)
        self._tell(found)
        return [[replace(h, words=self.tokenizer.decode(h.tokens).split()) for h in nbest] for nbest in found]

    def _tell(self, found: list[list[Hypothesis]]) -> None:
        before = self.cut, self.failed
        self.searched += len(found)
        self.cut += sum(bool(nbest) and not nbest[0].complete for nbest in found)
        self.failed += sum(not nbest for nbest in found)
        if before != (self.cut, self.failed):
            print(
                f"attention_beam: of {self.searched} utterances so far {self.cut} did not end within the "
                f"longest length (maxlenratio) and were cut off, and for {self.failed} nothing was found",
                file=sys.stderr,
            )

    def text(self, hypothesis: Hypothesis) -> str:
        """What the tokens spell."""
        return " ".join(hypothesis.words)


def token_fusion(config: Config, vocab: list[str], lm: NgramLM) -> Fusion:
    """Scores of a model of tokens.

    Raises:
        InputError: it knows none of the tokens.
    """
    if not any(token in lm.index for token in vocab if token not in SPECIAL_TOKENS):
        raise InputError(
            "--lm: knows none of the model's tokens; attention_beam needs an n-gram model of tokens, not of "
            "words (`speechkit ngram --tokenizer`)"
        )
    return Fusion(lm, vocab, config.lm_weight, 0.0, config.unk_score, end=True)


def build(config: Config, resources: Resources) -> Beam:
    """The search for a model."""
    resources.refuse_bert(config.name)
    return Beam(config, resources)
