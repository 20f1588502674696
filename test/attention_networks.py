"""Tiny attention decoders with random weights, and what they say of speech, for tests of the search."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechkit.config import from_dict, load_kind
from speechkit.decoders import DECODERS, Reading

VOCAB = ["<blank>", "a", "b", "<sos/eos>"]
EOS, DIM = len(VOCAB) - 1, 6
SIZES = {
    "las": {"embedding": 5, "cells": 7, "attention_dim": 6, "channels": 2, "kernel": 3, "projection": 8},
    "transformer": {"dim": 8, "layers": 2, "heads": 2, "feed_forward": 12},
}


class Networks:
    """A decoder and a CTC output layer, in fp64, and frames of a few utterances.

    Args:
        name: kind of the decoder.
        lengths: frames of each utterance.
        seed: of weights and frames.
        vocab: how many tokens, <sos/eos> last.
    """

    def __init__(self, name: str, lengths: list[int], seed: int = 0, vocab: int = len(VOCAB)) -> None:
        torch.manual_seed(seed)
        module = load_kind(DECODERS, name)
        config = from_dict(module.Config, {"name": name, **SIZES[name], "dropout": 0.0})
        self.decoder = module.build(config, vocab, DIM).double().eval()
        with torch.no_grad():
            for parameter in self.decoder.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
        self.frames = torch.randn(len(lengths), max(lengths), DIM).double()
        self.lengths = torch.tensor(lengths)
        self.ctc = nn.Linear(DIM, vocab).double()

    @property
    def log_probs(self) -> Tensor:
        """`(B, T, V)` of CTC."""
        return (3 * self.ctc(self.frames)).detach().log_softmax(-1)

    def reading(self) -> Reading:
        """The decoder, about to read."""
        return Reading(self.decoder, self.frames, self.lengths)

    def only(self, row: int) -> Networks:
        """The same networks with one utterance, without padding."""
        other = object.__new__(Networks)
        other.decoder, other.ctc, other.lengths = self.decoder, self.ctc, self.lengths[row : row + 1]
        other.frames = self.frames[row : row + 1, : int(self.lengths[row])]
        return other

    @torch.no_grad()
    def attention(self, row: int, tokens: tuple[int, ...], end: bool, eos: int = EOS) -> float:
        """Log probability of tokens, and of the end, under the decoder, all tokens at once."""
        one, said = self.only(row), [*tokens, *([eos] if end else [])]
        phi = self.decoder(torch.tensor([[eos, *tokens]]), one.frames, one.lengths)
        scores = self.decoder.output(phi)[0].log_softmax(-1)
        return sum(float(scores[place, token]) for place, token in enumerate(said))
