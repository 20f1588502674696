"""Encoders: features or samples in, representations out. Each passes test/properties/test_encoders.py.

Besides `forward`, an encoder has

- `takes`: the batch field that it reads, "features" or "speech" (samples);
- `stride`: frames or samples of that field between two output frames;
- `output_dim`, and `local_dim` of the features before its context network; `masked_dim` of the first block's
  input where that is not `output_dim`;
- `output_lengths(lengths)`: output frames of inputs of so many frames or samples;
- `keep_hidden_states` and `keep_local`: False; set to True to get those parts of `EncoderOutput`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

ENCODERS = {
    "conformer": "speechkit.encoders.conformer",
    "transformer": "speechkit.encoders.transformer",
    "blstm": "speechkit.encoders.blstm",
    "linear": "speechkit.encoders.linear",
    "wav2vec2": "speechkit.encoders.wav2vec2",
    "espnet": "speechkit.integrations.espnet_encoder",
}
"""Kind name -> module with a `Config` dataclass and `build(config, input_dim) -> nn.Module`."""


@dataclass
class EncoderOutput:
    """What `encoder(x, lengths)` returns.

    Attributes:
        frames: `(B, T, D)`, zeros beyond the lengths.
        lengths: `(B,)` int64.
        hidden_states: the input of the first block and the output of each, `(B, T, D)`, before any
            norm after the last one, when asked for with `encoder.keep_hidden_states = True`; else None.
        local: `(B, T, C)` unmasked features before the context network, for quantizers, when asked for
            with `encoder.keep_local = True`; else None.
        local_raw: the same before their normalisation, for the penalty on their size; None where an
            encoder does not normalise them.
    """

    frames: Tensor
    lengths: Tensor
    hidden_states: list[Tensor] | None = None
    local: Tensor | None = None
    local_raw: Tensor | None = None
