"""How well each word of a vocabulary explains a stretch of frames: CTC's forward scores of all spellings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FLOOR = -30.0
"""Natural logarithm below the best word of a stretch at which all others end."""


class WordScores:
    """Scores the words of a vocabulary; calling it scores stretches of frames.

    The states of a word are blank, y1, blank, y2, ..., blank, as in the forward algorithm of CTC (Graves et
    al., 2006, equations 6 to 8). Probabilities are kept relative to the best word's, so that no logarithm is
    taken on the way.

    Args:
        spellings: of each word its tokens; None or nothing for what cannot be spelt.
        blank: id of the blank.
    """

    def __init__(self, spellings: Sequence[Sequence[int] | None], blank: int = 0) -> None:
        sizes = [len(spelling or ()) for spelling in spellings]
        self.states = torch.full((len(sizes), 2 * max(sizes, default=0) + 1), blank)
        self.jumps = torch.zeros(self.states.shape)
        for row, jump, spelling in zip(self.states, self.jumps, spellings):
            for place, token in enumerate(spelling or ()):
                row[2 * place + 1] = token
                jump[2 * place + 1] = place > 0 and token != spelling[place - 1]
        self.last = 2 * torch.tensor(sizes, dtype=torch.int64)

    def __call__(self, log_probs: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Log-likelihoods of the words, relative to the best one's.

        Args:
            log_probs: `(T, V)` of one utterance, on the CPU.
            starts: `(N,)` first frames of the stretches.
            ends: `(N,)` the frames after their last ones.

        Returns:
            `(N, W)` natural logarithms from `FLOOR` to 0; all 0 where no word fits, as in a stretch of none.
        """
        order = (starts - ends).argsort(stable=True)  # longest first: those still running are the first rows
        starts, sizes = starts[order], (ends - starts)[order]
        probs = log_probs.float().exp()
        alpha = torch.zeros(len(order), *self.states.shape)
        alpha[:, :, 0] = 1.0
        for step in range(int(sizes.max()) if len(sizes) else 0):
            running = int((sizes > step).sum())
            emitted = probs[starts[:running] + step][:, self.states.flatten()].view(
                running, *self.states.shape
            )
            before = alpha[:running]
            after = before.clone()
            after[:, :, 1:] += before[:, :, :-1]
            after[:, :, 3:] += before[:, :, 1:-2] * self.jumps[:, 3:]
            if step == 0:
                after[:, :, 2:] = 0
            after *= emitted
            after /= after.amax((1, 2), keepdim=True).clamp(min=1e-30)
            alpha[:running] = after
        found = self._finish(alpha)
        return torch.empty_like(found).index_copy_(0, order, found)

    def _finish(self, alpha: Tensor) -> Tensor:
        """What is in the last label or the blank after it, as logarithms."""
        last = self.last.expand(len(alpha), -1)[..., None]
        total = alpha.gather(2, last) + alpha.gather(2, (last - 1).clamp(min=0))
        total = total[..., 0].masked_fill(self.last == 0, 0)
        best = total.amax(1, keepdim=True) if total.size(1) else total
        scores = (total / best.clamp(min=1e-30)).log().clamp(min=FLOOR)
        return scores.masked_fill(best <= 0, 0)
