"""Encoders: frames in, representations out. Every one of them passes test/properties/test_encoders.py."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

ENCODERS = {
    "conformer": "speechkit.encoders.conformer",
    "transformer": "speechkit.encoders.transformer",
    "blstm": "speechkit.encoders.blstm",
}
"""Kind name -> module with a `Config` dataclass and `build(config, input_dim) -> nn.Module`."""


@dataclass
class EncoderOutput:
    """What `encoder(x, lengths)` returns.

    Attributes:
        frames: `(B, T, D)`, zeros beyond the lengths.
        lengths: `(B,)` int64.
        hidden_states: the input of the first block and the output of each, `(B, T, D)`, when asked
            for with `encoder.keep_hidden_states = True`; else None.
        local: `(B, T, C)` features before the context network, for quantizers; None where an
            encoder has no such stage.
        local_raw: the same before their normalisation, for the penalty on their size.
    """

    frames: Tensor
    lengths: Tensor
    hidden_states: list[Tensor] | None = None
    local: Tensor | None = None
    local_raw: Tensor | None = None
