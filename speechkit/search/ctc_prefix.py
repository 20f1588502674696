"""CTC's probability that what was said begins with some tokens, for many hypotheses at once.

Source: Graves (2008), section 7.5, and Watanabe et al. (2017), "Hybrid CTC/attention architecture for
end-to-end speech recognition", algorithm 2. With r_n(t) and r_b(t) the probability of all alignments of t
frames that say a hypothesis g, their last frame a token or a blank, and p_t(c) that of token c in frame t:

    begins with g, c:  sum over t of phi(t - 1) p_t(c),   phi = r_n + r_b, or r_b where g ends in c
    is g:              r_n(T) + r_b(T)

The first needs no recursion, so all tokens that may follow are scored by one sum over frames; the recursion
runs for the hypotheses that are kept. All values are natural logarithms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speechkit.layers.masks import padding_mask

NEVER = float("-inf")


class CtcPrefix:
    """The hypotheses of a batch, each utterance as many and neighbours; at first one of no tokens.

    Args:
        log_probs: `(B, T, V)` of CTC, T at least 1.
        lengths: `(B,)` frames.
        blank: id of the blank, which never follows.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, blank: int = 0) -> None:
        beyond = padding_mask(lengths, log_probs.size(1))[:, None]
        # Behind the end there are sure blanks: all utterances then end in the last frame.
        self.values = log_probs.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # (B, V, T)
        self.values.masked_fill_(beyond, NEVER)[:, blank].masked_fill_(beyond[:, 0], 0.0)
        self.lengths, self.blank, self.size = lengths, blank, 0
        silent = self.values[:, blank].cumsum(1)
        blanks = torch.cat([silent.new_zeros(len(silent), 1), silent], 1)
        # r_n and r_b of every hypothesis, (N, 1 + T): after no frame, after one ...
        self.spoken, self.silent = torch.full_like(blanks, NEVER), blanks
        self.last = torch.full_like(lengths, -1)

    def score(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Scores what may follow.

        Args:
            tokens: `(N, C)` for each hypothesis.

        Returns:
            `(N, C)` log probability that it is said with the token next, -inf for a blank; and `(N,)` that of
            it being all that is said.
        """
        total = torch.logaddexp(self.spoken, self.silent)
        scores = (self._frames(tokens) + total[:, None, :-1]).logsumexp(-1)
        repeated = (self._frames(self.last.clamp(min=0)[:, None])[:, 0] + self.silent[:, :-1]).logsumexp(-1)
        scores = torch.where(tokens == self.last[:, None], repeated[:, None], scores)
        return scores.masked_fill(tokens == self.blank, NEVER), total[:, -1]

    def extend(self, rows: Tensor, tokens: Tensor) -> None:
        """Goes on with other hypotheses: `(M,)` rows of the present ones, each with one of `(M,)` tokens."""
        spoken, silent = self.spoken.index_select(0, rows), self.silent.index_select(0, rows)
        again = (tokens == self.last.index_select(0, rows))[:, None]
        phi = torch.where(again, silent, torch.logaddexp(spoken, silent)).t().contiguous()
        utterance = rows // self._width
        said = self.values.flatten(0, 1).index_select(0, utterance * self.values.size(1) + tokens)
        blank = self.values[:, self.blank].index_select(0, utterance)
        said, blank = said.t().contiguous(), blank.t().contiguous()
        spoken, silent = torch.full_like(phi, NEVER), torch.full_like(phi, NEVER)
        self.size += 1
        for t in range(self.size, len(phi)):  # a token takes a frame, so that before there is nothing
            torch.logaddexp(spoken[t - 1], phi[t - 1], out=spoken[t]).add_(said[t - 1])
            torch.logaddexp(silent[t - 1], spoken[t - 1], out=silent[t]).add_(blank[t - 1])
        self.spoken, self.silent = spoken.t().contiguous(), silent.t().contiguous()
        self.last = tokens

    def keep(self, utterances: Tensor) -> None:
        """From the last `extend` on, hypotheses belong to these of the utterances only."""
        self.lengths = self.lengths.index_select(0, utterances)
        longest = int(self.lengths.max())
        self.values = self.values.index_select(0, utterances)[..., :longest].contiguous()
        self.spoken, self.silent = self.spoken[:, : longest + 1], self.silent[:, : longest + 1]

    @property
    def _width(self) -> int:
        """Hypotheses of an utterance."""
        return len(self.last) // len(self.values)

    def _frames(self, tokens: Tensor) -> Tensor:
        """`(N, C)` tokens to their log probabilities in all frames, `(N, C, T)`."""
        size = self.values.size(1)
        start = torch.arange(len(self.values), device=tokens.device).repeat_interleave(self._width) * size
        places = (start[:, None] + tokens).flatten()
        return self.values.flatten(0, 1).index_select(0, places).view(*tokens.shape, -1)
