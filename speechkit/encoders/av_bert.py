"""AV-BERT's encoder: one Transformer over the patches of a clip's video and audio, or of audio alone.

Audio alone takes a path of its own that touches nothing of video: that is what a recogniser reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechkit.encoders.av_bert_config import Config
from speechkit.frontends.patches import stack_audio
from speechkit.layers.attention import SelfAttention
from speechkit.layers.conformer_block import FeedForward
from speechkit.layers.dropout import FrameDropout
from speechkit.layers.masks import Packing
from speechkit.layers.patch_embeddings import AudioTokens, VideoTokens
from speechkit.layers.token_instance_norm import TOKEN_NORMS

__all__ = ["Audio", "AvBert", "Config", "States", "Video"]


class Audio(NamedTuple):
    """Audio patches of a batch.

    Attributes:
        patches: `(B, N, P)`; padding of any content.
        lengths: `(B,)` tokens; 0 is allowed.
        hidden: `(B, N')` bool with N' >= the longest, True at masked tokens; None for none.
    """

    patches: Tensor
    lengths: Tensor
    hidden: Tensor | None = None


class Video(NamedTuple):
    """Video patches of a batch, or a stretch of time of each clip.

    Attributes:
        patches: `(B, N, P)` by time, row, column; padding of any content.
        lengths: `(B,)` tokens; 0 is allowed.
        image: rows and columns of an image.
        starts: `(B,)` number of the first slice that is there, in its whole clip.
        slices: `(B,)` slices of the whole clips.
        hidden: as of `Audio`.
    """

    patches: Tensor
    lengths: Tensor
    image: tuple[int, int]
    starts: Tensor
    slices: Tensor
    hidden: Tensor | None = None


class States(NamedTuple):
    """What comes out: packed `(N, D)` tokens of each modality, and where clips lie; None without video."""

    audio: Tensor
    audio_packing: Packing
    video: Tensor | None = None
    video_packing: Packing | None = None


class Layout(NamedTuple):
    """Where packed tokens belong.

    Attributes:
        packing: what attends to each other.
        runs: sizes of the neighbours that instance norms take together.
    """

    packing: Packing
    runs: Sequence[int]


class AvBlock(nn.Module):
    """Self-attention and feed-forward, each around a residual, with norms that know the layout.

    Args:
        config: see `Config`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        shape, norm = config.shape(), TOKEN_NORMS[config.norm]
        self.norm_first = config.norm_first
        self.norm_attention, self.norm_feed_forward = norm(config.dim), norm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads, config.attention_dropout)
        self.feed_forward = FeedForward(shape)
        self.dropout = FrameDropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """`(N, D)` packed tokens to the same."""
        parts = (self.norm_attention, self.attention), (self.norm_feed_forward, self.feed_forward)
        for norm, part in parts:
            y = norm(x, layout.runs) if self.norm_first else x
            x = x + self.dropout(part(y, layout.packing), layout.packing)
            x = x if self.norm_first else norm(x, layout.runs)
        return x


class AvBert(nn.Module):
    """The encoder.

    Args:
        config: see `Config`.
        bins: features of a frame.
    """

    def __init__(self, config: Config, bins: int) -> None:
        super().__init__()
        self.config, self.output_dim = config, config.dim
        frames, pixels = config.audio_patch, config.tubelet * config.patch**2 * 3
        self.audio = AudioTokens(frames * bins, config.dim, config.max_audio, config.pos_extend)
        self.video = None
        if config.modalities == "audio_video":
            self.video = VideoTokens(pixels, config.dim, tuple(config.grid), config.video_pos == "factored")
        self.dropout = FrameDropout(config.dropout)
        self.blocks = nn.ModuleList(AvBlock(config) for _ in range(config.layers))
        self.norm = TOKEN_NORMS[config.norm](config.dim) if config.norm_first else None

    def forward(self, audio: Audio, video: Video | None = None) -> States:
        """All tokens of a clip look at all.

        Args:
            audio: of every clip; 0 tokens for one without.
            video: the same; None where no clip has any.
        """
        heard = Packing(audio.lengths)
        x = self.audio(heard.pack(audio.patches), heard, _pack(audio.hidden, heard))
        if video is None:
            return States(self._run(x, Layout(heard, heard.sizes)), heard)
        seen = Packing(video.lengths)
        hidden = _pack(video.hidden, seen)
        y = self.video(seen.pack(video.patches), seen, video.image, video.starts, video.slices, hidden)
        pair = ((y, seen.sizes), (x, heard.sizes))
        if self.config.concat == "av":
            pair = pair[::-1]
        both = Packing(audio.lengths + video.lengths)
        sizes = [size for clip in zip(*(sizes for _, sizes in pair)) for size in clip]
        parts = zip(*(tokens.split(sizes) for tokens, sizes in pair))
        together = torch.cat([part for clip in parts for part in clip])
        runs = sizes if self.config.inst_scope == "per_modality" else both.sizes
        found = self._run(together, Layout(both, runs)).split(sizes)
        first, second = torch.cat(found[::2]), torch.cat(found[1::2])
        if self.config.concat == "av":
            return States(first, heard, second, seen)
        return States(second, heard, first, seen)

    def audio_tokens(
        self, features: Tensor, lengths: Tensor, window: int = 333, layer: int = -1
    ) -> tuple[Tensor, Tensor]:
        """What a recogniser reads: audio alone, of any duration, in windows of the training's length.

        Windows do not see each other, and positions begin anew in each. An incomplete last patch is filled up
        with zeros.

        Args:
            features: `(B, T, F)` whitened and clipped frames; padding of any content.
            lengths: `(B,)` frames.
            window: tokens of a window; 10 s have 333.
            layer: the output of this block, from 1; -1 is the last one with its norm.

        Returns:
            `(B, N, D)` with zeros at padding, and `(B,)` tokens: frames / 3, rounded up.
        """
        patches, tokens = stack_audio(features, lengths, self.config.audio_patch, pad=True)
        packing = Packing(tokens)
        if packing.total == 0:
            return features.new_zeros(len(tokens), 0, self.output_dim), tokens
        cuts = [min(window, size - begin) for size in packing.sizes for begin in range(0, size, window)]
        windows = Packing(torch.tensor(cuts, device=tokens.device))  # the same tokens, in other sequences
        x = self.audio(packing.pack(patches), windows)
        return packing.unpack(self._run(x, Layout(windows, windows.sizes), layer)), tokens

    def _run(self, x: Tensor, layout: Layout, layer: int = -1) -> Tensor:
        """The blocks, up to number `layer`, and the last norm after all of them."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # residuals stay fp32 under autocast
        x = self.dropout(x, layout.packing)
        for block in self.blocks if layer < 0 else self.blocks[:layer]:
            if self.config.checkpointing and self.training:
                x = checkpoint(block, x, layout, use_reentrant=False)
            else:
                x = block(x, layout)
        return x if self.norm is None or layer >= 0 else self.norm(x, layout.runs)


def _pack(hidden: Tensor | None, packing: Packing) -> Tensor | None:
    return None if hidden is None else packing.pack(hidden.to(packing.lengths.device))
