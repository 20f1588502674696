"""Decoders: encoder frames and the tokens so far in, what comes next out.

Those in the table attend to the frames (the networks of transducers stand in `prediction` and `joint`). Each
passes test/unit/decoders/test_attention_decoders.py. A decoder has

- `forward(tokens, frames, lengths)`: `(B, U)` tokens that were read, the first of them <sos>, with frames
  `(B, T, D)` and `(B,)` their lengths, to phi `(B, U, output_dim)`: the vectors that the output layer
  multiplies; what stands behind a token changes nothing;
- `output`: the output layer, phi to `(..., V)` logits;
- `output_dim` of phi;
- `remember(frames, lengths)`, `start(memory)` and `step(tokens, rows, memory, state)`: the same, token by
  token;
- `maps(tokens, frames, lengths)`: where the tokens listen, name -> `(B, H, U, T)` weights.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

DECODERS = {
    "las": "speechkit.decoders.las",
    "transformer": "speechkit.decoders.transformer",
}
"""Kind name -> module with a `Config` dataclass and `build(config, vocab_size, input_dim) -> nn.Module`."""

Memory = tuple[Tensor, ...]
"""What a decoder made of the frames; the first axis of every tensor is that of the utterances."""


class Decoder(Protocol):
    """What the search needs of a decoder."""

    output: nn.Module
    """The output layer."""

    def remember(self, frames: Tensor, lengths: Tensor) -> Memory:
        """What is made of the frames once, however many hypotheses read them."""

    def start(self, memory: Memory) -> Any:
        """The state of one hypothesis for each utterance, which has read nothing."""

    def step(self, tokens: Tensor, rows: Tensor, memory: Memory, state: Any) -> tuple[Tensor, Any]:
        """Reads one more token each.

        Args:
            tokens: `(N,)`; the hypotheses of an utterance are neighbours, and each utterance has as many.
            rows: `(N,)` which hypothesis of the state each of these continues.
            memory: of the utterances that the hypotheses belong to.
            state: from the last call, or from `start`.

        Returns:
            phi `(N, output_dim)`, and the state of these hypotheses.
        """


class Reading:
    """A decoder that reads hypotheses of a batch token by token: what `speechkit.search.attention_beam` asks.

    Args:
        decoder: of `DECODERS`.
        frames: `(B, T, D)` of the encoder.
        lengths: `(B,)`.
    """

    def __init__(self, decoder: Decoder, frames: Tensor, lengths: Tensor) -> None:
        self.decoder, self.memory = decoder, decoder.remember(frames, lengths)
        self.state = decoder.start(self.memory)

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """`(N, V)` log-probabilities in fp32 at least of what follows; arguments as of `Decoder.step`.

        In the first call `rows` are utterances; later, hypotheses of the call before.
        """
        phi, self.state = self.decoder.step(tokens, rows, self.memory, self.state)
        logits = self.decoder.output(phi)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    def keep(self, utterances: Tensor) -> None:
        """From the next call on, hypotheses belong to these of the utterances only."""
        self.memory = tuple(part.index_select(0, utterances) for part in self.memory)
