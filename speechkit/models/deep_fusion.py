"""A frozen AV-BERT beside a recogniser of audio: every block of the encoder reads its tokens (deep fusion).

AV-BERT reads the same whitened and clipped features as the encoder does, without SpecAugment; it is a part of
the model and of its checkpoints, never of the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from speechkit.config import check_range, from_dict
from speechkit.data.batch import Batch
from speechkit.encoders import av_bert
from speechkit.encoders.av_bert import AvBert
from speechkit.errors import InputError
from speechkit.frontends.patches import Whitening
from speechkit.models.assets import Assets
from speechkit.models.context_cache import ContextCache

SHOWN = 4
"""Blocks whose attention is shown, at most."""


@dataclass
class Config:
    """Which AV-BERT is read, and how."""

    av_bert: str
    """Checkpoint or experiment folder of a finished model of kind `av_bert`; its statistics are used too."""

    layer: int = -1
    """Block, from 1, whose output is read; -1 is the last one with its norm."""

    chunk_seconds: float = 10.0
    """AV-BERT reads longer audio in windows of so many seconds: the length of the clips it learnt from."""

    augment_avbert_input: bool = False
    """Let AV-BERT read what SpecAugment leaves in training, instead of the whole audio."""

    cache: str | None = None
    """Folder where AV-BERT's tokens are kept, so that it runs once for each utterance; null for none."""

    def __post_init__(self) -> None:
        check_range("chunk_seconds", self.chunk_seconds, 0.1)
        if self.layer != -1:
            check_range("layer", self.layer, 1)
        if self.augment_avbert_input and self.cache is not None:
            raise ValueError("cache: keeps nothing with augment_avbert_input, which changes with every epoch")


class DeepFusion(nn.Module):
    """A frozen AV-BERT; whatever the model around it does, it stays in evaluation mode.

    Args:
        config: see `Config`.
        encoder: of audio; its weights come from a file.
        rate: feature frames a second.
    """

    def __init__(self, config: Config, encoder: AvBert, rate: float = 100.0) -> None:
        super().__init__()
        self.config, self.av_bert, self.rate = config, encoder.requires_grad_(False), rate
        self.window = max(1, int(config.chunk_seconds * rate / encoder.config.audio_patch))
        self.cache: ContextCache | None = None
        self.train()

    def train(self, mode: bool = True) -> DeepFusion:
        """Stays in evaluation mode: dropout would make every reading another one."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, features: Tensor, lengths: Tensor, ids: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
        """What every block reads.

        Args:
            features: `(B, T, F)` whitened and clipped; padding of any content.
            lengths: `(B,)` frames.
            ids: of the utterances, for the cache.

        Returns:
            K, `(B, N, D)` with zeros at padding, and `(B,)` tokens; neither has a gradient.
        """
        if self.cache is None:
            return self.av_bert.audio_tokens(features, lengths, self.window, self.config.layer)
        sizes = lengths.tolist()
        rows = [row[:size] for row, size in zip(features, sizes)]
        found = [self.cache.get(utterance, row) for utterance, row in zip(ids, rows)]
        new = [i for i, values in enumerate(found) if values is None]
        if new:
            index = torch.tensor(new, device=lengths.device)
            part = features.index_select(0, index), lengths.index_select(0, index)
            made, tokens = self.av_bert.audio_tokens(*part, self.window, self.config.layer)
            for i, values, count in zip(new, made, tokens.tolist()):
                found[i] = values[:count].half()
                self.cache.put(ids[i], rows[i], found[i])
        counts = torch.tensor([len(values) for values in found], device=lengths.device)
        values = [values.to(features.device, features.dtype) for values in found]
        return nn.utils.rnn.pad_sequence(values, batch_first=True), counts


def with_context(encoder: Any, config: Config | None, assets: Assets) -> Any:
    """The configuration of an encoder that reads AV-BERT's tokens.

    Args:
        encoder: its configuration.
        config: of the fusion; None changes nothing.
        assets: with the AV-BERT.

    Raises:
        InputError: no AV-BERT, or an encoder that reads no other sequence.
    """
    if config is None:
        return encoder
    if assets.av_bert is None:
        raise InputError("model.fusion: the checkpoint of an AV-BERT is needed; name it in fusion.av_bert")
    if not hasattr(encoder, "context_dim"):
        raise InputError(f"model.fusion: the {encoder.name} encoder reads no other sequence; use conformer")
    dim = assets.av_bert["encoder"]["dim"]
    if encoder.context_dim not in (None, dim):
        raise InputError(f"model.encoder.context_dim={encoder.context_dim}: this AV-BERT has {dim}")
    return replace(encoder, context_dim=dim)


def fuse(model: Any, settings: Any, assets: Assets) -> Any:
    """Puts an AV-BERT, still with random weights, beside a CTC system or what is built on one.

    Args:
        model: has `cmvn`, and an encoder built with `with_context`.
        settings: its configuration; without `fusion` nothing is changed.
        assets: with the AV-BERT and the statistics of its features.

    Raises:
        InputError: no statistics, another limit than AV-BERT's, or a block or windows that it does not have.
    """
    if settings.clip is not None and assets.cmvn is None:
        raise InputError("model.clip: is for normalised features; give --cmvn")
    if settings.fusion is None:
        return model
    if assets.cmvn is None:
        raise InputError("model.fusion: AV-BERT's statistics are missing (cmvn.json in its assets)")
    config, known = settings.fusion, assets.av_bert
    if settings.clip not in (None, known["clip"]):
        raise InputError(
            f"model.clip={settings.clip}: this AV-BERT reads features clipped to {known['clip']}"
        )
    audio = replace(from_dict(av_bert.Config, known["encoder"]), modalities="audio", checkpointing=False)
    if config.layer > audio.layers:
        raise InputError(f"model.fusion.layer={config.layer}: this AV-BERT has {audio.layers} blocks")
    model.cmvn = Whitening(assets.cmvn, known["whiten"], known["clip"])
    rate = 1000 / assets.cmvn.get("config", {}).get("frame_shift", 10.0)
    model.fusion = DeepFusion(config, AvBert(audio, len(assets.cmvn["mean"])), rate)
    if model.fusion.window > audio.max_audio and audio.pos_extend == "error":
        longest = audio.max_audio * audio.audio_patch / rate
        raise InputError(
            f"model.fusion.chunk_seconds={config.chunk_seconds:g}: this AV-BERT has positions for "
            f"{longest:g} s; give the length of the clips that it learnt from"
        )
    return model


def context_maps(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Which of AV-BERT's tokens the frames of the encoder read, in a batch of one utterance.

    Args:
        model: with a `fusion`, in evaluation mode.
        batch: with its inputs.

    Returns:
        "block 3" and so on, counted from 1 -> `(T, M)` weights, the mean over heads, of a few blocks; those
        of a frame sum to 1.
    """
    maps: dict[str, Tensor] = {}
    last = len(model.encoder.blocks) - 1
    shown = sorted({round(i * last / max(1, SHOWN - 1)) for i in range(SHOWN)})

    def keep(name: str) -> Callable:
        return lambda attention, inputs: maps.update({name: attention.maps(*inputs)[0].mean(0).cpu()})

    parts = [(f"block {i + 1}", model.encoder.blocks[i].context.attention) for i in shown]
    handles = [attention.register_forward_pre_hook(keep(name)) for name, attention in parts]
    try:
        with torch.no_grad():
            model.encode(batch)
    finally:
        for handle in handles:
            handle.remove()
    return maps
