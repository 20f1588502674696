"""The configuration of AV-BERT's encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechkit.config import check_range
from speechkit.layers.conformer_block import Shape


@dataclass
class Config:
    """A Transformer over patches; the defaults are the published sizes where these are known."""

    modalities: Literal["audio_video", "audio"] = "audio_video"
    """What it can read; `audio` builds nothing for video."""

    dim: int = 128
    """Model dimension D."""

    layers: int = 6
    """Number of blocks."""

    heads: int = 4
    """Attention heads, a divisor of `dim`."""

    feed_forward: int = 512
    """Inner dimension of the feed-forward parts."""

    dropout: float = 0.1
    """Probability of dropping a value after each part and inside the feed-forward parts."""

    attention_dropout: float = 0.0
    """Probability of dropping an attention weight; more than 0 rules out the fast kernels."""

    norm: Literal["instance", "layer"] = "instance"
    """Of each channel over the tokens of a clip, as published, or of each token."""

    inst_scope: Literal["per_modality", "joint"] = "per_modality"
    """What instance norms take statistics over: audio and video apart, so that audio alone is normalised as
    it was with video; or all tokens of a clip."""

    norm_first: bool = True
    """Normalise the input of each part, and the last block's output; or each sum."""

    audio_patch: int = 3
    """Feature frames of an audio token."""

    max_audio: int = 1024
    """Positions of audio tokens."""

    pos_extend: Literal["error", "interp"] = "error"
    """Audio of more tokens than positions is refused, or has the positions spread over it."""

    tubelet: int = 3
    """Video frames of a token."""

    patch: int = 16
    """Height and width of a token in pixels."""

    grid: list[int] = field(default_factory=lambda: [20, 16, 16])
    """Positions of video tokens: slices of time, rows and columns. 10 s of 6 frames a second are 60 frames,
    20 slices; 256 x 256 pixels are 16 x 16 patches. Other clips take the nearest positions."""

    video_pos: Literal["factored", "full"] = "factored"
    """A vector for the place in the image plus one for the slice of time, or one for each of all places."""

    concat: Literal["va", "av"] = "va"
    """Which modality comes first in the sequence."""

    checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        for name in (
            "dim",
            "layers",
            "heads",
            "feed_forward",
            "audio_patch",
            "max_audio",
            "tubelet",
            "patch",
        ):
            check_range(name, getattr(self, name), 1)
        for name in ("dropout", "attention_dropout"):
            check_range(name, getattr(self, name), 0, 1, open_high=True)
        if len(self.grid) != 3 or min(self.grid) < 1:
            raise ValueError(f"grid={self.grid} must be three numbers: slices of time, rows, columns")
        self.shape()

    def shape(self) -> Shape:
        """Sizes of a block."""
        return Shape(
            dim=self.dim,
            heads=self.heads,
            feed_forward=self.feed_forward,
            activation="gelu",
            positions="none",
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            shared_dropout=False,
        )
