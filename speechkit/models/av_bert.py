"""AV-BERT (Chan et al., 2022): tell the clusters of masked patches of audio and video, from all the others.

What comes of it is read by recognisers of audio alone, see `speechkit.models.deep_fusion`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.data.labels import LabelSet
from speechkit.encoders.av_bert import Audio, AvBert, States, Video
from speechkit.errors import InputError
from speechkit.frontends.patches import PixelScaling, Whitening, patchify_video, stack_audio
from speechkit.layers import av_mask
from speechkit.layers.masks import Packing, padding_mask
from speechkit.losses import masked_prediction as prediction
from speechkit.models.assets import Assets
from speechkit.models.av_bert_config import Config
from speechkit.models.av_clips import Clips, Tokens, draw_clips
from speechkit.models.av_labels import label_sets

__all__ = ["AvBertModel", "Config", "build"]


class Prediction(NamedTuple):
    """What is told of one modality: `(N,)` logits' best class and the true one, and the summed loss."""

    best: Tensor
    targets: Tensor
    loss: Tensor


class AvBertModel(nn.Module):
    """Encoder, and a classifier of the tokens of each modality.

    Terms: `audio` and `video`, the cross-entropies of masked tokens in nats, and `both`, of all of them. With
    `modality_weight: equal` the first two are trained on, with `tokens` the last one. Watched: `accuracy_*`
    of masked tokens, `coverage_*`, the share of tokens that is masked, and `entropy_*`, the cross-entropy of
    somebody who knows only how frequent each cluster is: no progress is made before the loss is below it. The
    dev set has `perplexity`, `perplexity_audio` and `perplexity_video` too.

    Args:
        config: see `Config`.
        encoder: reads patches.
        cmvn: whitens and clips features.
        pixels: scales pixels; None without video.
        label_sets: what labels are of, as far as it is known.
    """

    mixes = True  # clips with and without video go into one batch

    def __init__(
        self,
        config: Config,
        encoder: AvBert,
        cmvn: Whitening,
        pixels: PixelScaling | None,
        label_sets: Sequence[LabelSet] = (),
    ) -> None:
        super().__init__()
        self.label_sets = list(label_sets)
        self.config, self.encoder, self.cmvn, self.pixels = config, encoder, cmvn, pixels
        self.input_dim = len(cmvn.cmvn.mean)
        self.classes = {"audio": config.classes_audio}
        if encoder.video is not None:
            self.classes["video"] = config.classes_video
        self.inputs, self.optional = ("features",), ()
        if encoder.video is not None:
            self.optional = ("video", "kmeans_video")
        self.requires = (*self.inputs, "kmeans_audio", *self.optional)
        if config.vocab == "joint":
            self.heads = nn.ModuleDict({"joint": nn.Linear(config.encoder.dim, sum(self.classes.values()))})
        else:
            self.heads = nn.ModuleDict(
                {name: nn.Linear(config.encoder.dim, count) for name, count in self.classes.items()}
            )
        together = config.modality_weight == "tokens" and encoder.video is not None
        self.weights = {"both": 1.0} if together else dict.fromkeys(self.classes, 1.0)
        self.entropies: dict[str, float] = {}
        self.set_update(0)

    # ---- what is predicted ------------------------------------------------------------------------------

    def set_update(self, update: int) -> None:
        """Brings the masks to an update."""
        self.stage = av_mask.stage(self.config.mask, update)

    def know_labels(self, labels: Mapping[str, np.ndarray]) -> None:
        """Learns how frequent each cluster is.

        Args:
            labels: batch field -> labels of the training set, one after the other.
        """
        for name in self.classes:
            counts = np.bincount(labels.get(f"kmeans_{name}", np.zeros(0, np.int64)))
            share = counts[counts > 0] / max(1, counts.sum())
            if len(share):
                self.entropies[name] = float(-(share * np.log(share)).sum())

    def draw(self, batch: Batch) -> Clips:
        """What is read and masked: of the schedule in training, the same for ever in evaluation."""
        now = self.stage if self.training else av_mask.validation_stage(self.config.mask)
        return draw_clips(batch, self.config, now, self.training)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked tokens with a label; of coverages all tokens; 1 of entropies."""
        return self._counts(self.draw(batch))

    def _counts(self, clips: Clips) -> dict[str, int]:
        counts, total = {}, 0
        for name in self.classes:
            tokens = getattr(clips, name)
            predicted = 0 if tokens is None else int(tokens.predicted.sum())
            counts[name] = counts[f"accuracy_{name}"] = predicted
            counts[f"coverage_{name}"] = 0 if tokens is None else int(tokens.lengths.sum())
            total += predicted
        if "video" in self.classes:
            counts["both"] = total
        return counts | {f"entropy_{name}": 1 for name in self.entropies}

    # ---- the loss ---------------------------------------------------------------------------------------

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; masks are those of `set_update`."""
        clips = self.draw(batch)
        states = self.encoder(*self.patches(batch, clips))
        zero = states.audio.new_zeros(())
        values: dict[str, Tensor] = {}
        for name in self.classes:
            tokens = getattr(clips, name)
            found = None if tokens is None else self.predict(name, states, tokens, batch)
            values[name] = zero if found is None else found.loss
            values[f"accuracy_{name}"] = zero if found is None else (found.best == found.targets).sum()
            values[f"coverage_{name}"] = zero if tokens is None else tokens.hidden.sum().to(zero.device)
        if "video" in self.classes:
            values["both"] = values["audio"] + values["video"]
        for name, entropy in self.entropies.items():
            values[f"entropy_{name}"] = zero + entropy
        return {name: (values[name], count) for name, count in self._counts(clips).items()}

    def derive(self, values: Mapping[str, float]) -> dict[str, float]:
        """Perplexities of dev rows: how many equally likely clusters are as hard to tell."""
        names = {name: f"perplexity_{name}".removesuffix("_both") for name in (*self.classes, "both")}
        return {names[name]: math.exp(min(values[name], 80)) for name in names if name in values}

    def predict(self, name: str, states: States, tokens: Tokens, batch: Batch) -> Prediction:
        """The chosen tokens of one modality and what their clusters are taken for.

        Args:
            name: "audio" or "video".
            states: of the encoder.
            tokens: of this modality; those that are `predicted` are chosen.
            batch: with the labels.
        """
        hidden = getattr(states, name)
        inside = ~padding_mask(tokens.lengths, tokens.predicted.size(1))
        index = tokens.predicted[inside].nonzero().squeeze(1).to(hidden.device)
        logits = self.logits(name, hidden.index_select(0, index))
        labels = self._labels(name, tokens, batch, getattr(states, f"{name}_packing"))
        targets = labels.index_select(0, index)
        if self.config.vocab == "joint" and name == "audio" and "video" in self.classes:
            targets = targets + self.config.classes_video
        loss = prediction.prediction_loss(logits, targets)
        return Prediction(logits.detach().argmax(-1), targets, loss)

    def logits(self, name: str, states: Tensor) -> Tensor:
        """`(N, D)` states of a modality to `(N, K)`; with one vocabulary video's clusters come first."""
        return self.heads["joint" if self.config.vocab == "joint" else name](states)

    def _labels(self, name: str, tokens: Tokens, batch: Batch, packing: Packing) -> Tensor:
        """`(N,)` of all packed tokens, whatever where there is none."""
        field, width = f"kmeans_{name}", tokens.predicted.size(1)
        if field not in batch or not batch[field].values.size(1):
            return packing.lengths.new_zeros(packing.total)
        values = batch[field].values
        if not values.is_cuda and int(values.max()) >= self.classes[name]:
            row = int(values.amax(1).argmax())
            raise InputError(
                f"utterance {batch.ids[row]}: label {int(values.max())} of {field}, and the model has "
                f"{self.classes[name]} classes; set model.classes_{name}, or make the labels again"
            )
        places = tokens.first[:, None] + torch.arange(width)
        places = places.clamp(max=values.size(1) - 1).to(values.device)
        return packing.pack(values.gather(1, places))

    def patches(self, batch: Batch, clips: Clips) -> tuple[Audio, Video | None]:
        """What the encoder reads."""
        features, stretch = batch["features"], clips.stretch
        device, config = features.values.device, self.config.encoder
        stacked, _ = stack_audio(self.cmvn(features.values), features.lengths, config.audio_patch)
        audio = Audio(stacked, clips.audio.lengths.to(device), clips.audio.hidden)
        if stretch is None:
            return audio, None
        frames = batch["video"].values
        if self.config.max_video_tokens is not None:
            offsets = torch.arange(int(stretch.kept.max()) * config.tubelet)
            places = (stretch.starts[:, None] * config.tubelet + offsets).clamp(max=frames.size(1) - 1)
            frames = frames[torch.arange(len(frames))[:, None].to(device), places.to(device)]
        patches = patchify_video(self.pixels(frames), config.tubelet, config.patch)
        lengths, starts, slices = (
            x.to(device) for x in (clips.video.lengths, stretch.starts, stretch.slices)
        )
        return audio, Video(patches, lengths, stretch.image, starts, slices, clips.video.hidden)

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Nothing: this system has no output to decode."""
        return {}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` audio tokens of so many feature frames."""
        return lengths // self.config.encoder.audio_patch


def build(config: Config, assets: Assets) -> AvBertModel:
    """The model, with random weights.

    Raises:
        InputError: no statistics of features, or of pixels where there is video, or of other features.
    """
    if assets.cmvn is None:
        raise InputError("model av_bert: needs --cmvn, statistics of its features (speechkit features)")
    bins = len(assets.cmvn["mean"])
    if config.input_dim not in (None, bins):
        raise InputError(f"model.input_dim={config.input_dim}, but the statistics have {bins} dimensions")
    pixels = None
    if config.encoder.modalities == "audio_video":
        if assets.video is None:
            raise InputError("model.video_statistics: name the video_stats.json that `speechkit video` made")
        pixels = PixelScaling(assets.video)
    encoder, sets = AvBert(config.encoder, bins), label_sets(config, assets)
    return AvBertModel(config, encoder, Whitening(assets.cmvn, config.whiten, config.clip), pixels, sets)
