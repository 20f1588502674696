"""Beam search of attention decoders with CTC prefix scores and language models, batched over utterances.

Source: Watanabe et al. (2017), "Hybrid CTC/attention architecture for end-to-end speech recognition" (one
pass; equation 50 for the end); Seki et al. (2019), "Vectorized beam search for CTC-attention-based speech
recognition". What is kept, what is scored and when it ends is as in ESPnet's `BatchBeamSearch`: the same
networks give the same hypotheses.

A hypothesis g is worth

    sum of weight * log p(g) over networks + ctc_weight * log p_ctc(g ...) + lm_weight * log p_lm(g)
    + length_bonus * |g|

with <eos> among its tokens once it has ended; p_ctc is that of beginning with g until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from speechkit.config import check_range
from speechkit.search.attention_search import Search
from speechkit.search.beam_fusion import Fusion
from speechkit.search.hypothesis import Hypothesis


@dataclass
class AttentionBeamConfig:
    """Options of the search; scores are natural logarithms."""

    beam: int = 10
    """Hypotheses kept for each utterance; 1 is the greedy search."""
    nbest: int = 1
    """Hypotheses returned for each utterance, at most."""
    ctc_weight: float = 0.3
    """Share of CTC's prefix score; that of the decoder is 1 - ctc_weight. For CTC alone see ctc_beam."""
    lm_weight: float = 0.3
    """Factor of the language model's natural log probability, where one is given."""
    unk_score: float = -10.0
    """Added for tokens that the n-gram model does not know; -.inf forbids them."""
    length_bonus: float = 0.0
    """Added for every token, and for the end."""
    maxlenratio: float = 0.0
    """Most tokens, as a share of the encoder's frames; below 0 their number; 0: as many as frames, and the
    search ends when hypotheses only get worse (see `end_span`)."""
    minlenratio: float = 0.0
    """Fewest tokens, as a share of the encoder's frames; below 0 their number."""
    prebeam: float = 1.5
    """Of each hypothesis only the beam times this many best tokens by decoder and neural language models are
    scored by CTC and n-grams."""
    end_span: int = 3
    """With maxlenratio 0 the search ends when of so many lengths in a row ..."""
    end_margin: float = 10.0
    """... all that has ended is worse than the best of any length, by more than this."""
    normalise: bool = False
    """Rank what is returned by score per token."""

    def __post_init__(self) -> None:
        check_range("beam", self.beam, 1)
        check_range("nbest", self.nbest, 1)
        check_range("ctc_weight", self.ctc_weight, 0, 1, open_high=True)
        check_range("lm_weight", self.lm_weight, 0)
        check_range("prebeam", self.prebeam, 1)
        check_range("end_span", self.end_span, 1)
        check_range("end_margin", self.end_margin, 0)
        if not self.unk_score <= 0:
            raise ValueError(f"unk_score={self.unk_score} must not be above 0")


class Steps(Protocol):
    """A network that predicts the next token of many hypotheses, such as `speechkit.decoders.Reading`."""

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """`(N, V)` log-probabilities of what follows.

        Args:
            tokens: `(N,)` last tokens; hypotheses of an utterance are neighbours, each utterance has as many.
            rows: `(N,)` which hypothesis of the last call each continues; in the first call its utterance.
        """

    def keep(self, utterances: Tensor) -> None:
        """From the next call on, hypotheses belong to these of the utterances only."""


class AttentionBeam:
    """A search that is ready to run; calling it decodes a batch.

    Args:
        config: see `AttentionBeamConfig`.
        eos: id of <sos/eos>.
        blank: id of CTC's blank.
        forbidden: ids that are never said.
        lm: scores tokens by an n-gram model, or None.
    """

    def __init__(
        self,
        config: AttentionBeamConfig,
        eos: int,
        blank: int = 0,
        forbidden: Sequence[int] = (),
        lm: Fusion | None = None,
    ) -> None:
        self.config, self.eos, self.blank, self.lm = config, eos, blank, lm
        self.forbidden = list(forbidden)

    @torch.no_grad()
    def __call__(
        self,
        networks: Sequence[tuple[Steps, float]],
        lengths: Tensor,
        log_probs: Tensor | None = None,
    ) -> list[list[Hypothesis]]:
        """Decodes a batch.

        Args:
            networks: the decoder, then neural language models where there are any, each with its weight.
            lengths: `(B,)` frames.
            log_probs: `(B, T, V)` of CTC; None leaves it out.

        Returns:
            For each utterance its hypotheses, best first, without words; one that has not ended within the
            longest length is not `complete`. None where the shortest length leaves nothing possible; an empty
            one where there is no frame.

        Raises:
            InputError: a score is NaN.
        """
        return Search(self, networks, lengths, log_probs).run()
