"""What the labels of an AV-BERT must be of: clusters of exactly the patches that it reads."""

from __future__ import annotations

from dataclasses import fields

from speechkit.config import from_dict
from speechkit.data.labels import LabelSet
from speechkit.frontends import audio_patches, fbank, video_patches
from speechkit.frontends.patches import FrameConfig
from speechkit.models.assets import Assets
from speechkit.models.av_bert_config import Config

AUDIO = "model.classes_audio", "model.encoder.audio_patch"
VIDEO = "model.classes_video", "model.video_statistics, model.encoder.tubelet or model.encoder.patch"
"""What to set for another number of classes, and for another rate."""


def label_sets(config: Config, assets: Assets) -> list[LabelSet]:
    """Number of classes, rate, and hash of the patches that were clustered.

    Args:
        config: of the model.
        assets: the statistics; without a record of what these are of, any patches will do.
    """
    return [*_audio(config, assets.cmvn), *_video(config, assets.video)]


def _audio(config: Config, statistics: dict) -> list[LabelSet]:
    stack, record = config.encoder.audio_patch, statistics.get("config", {})
    if record.get("name", "fbank") != "fbank":
        return []
    known = {f.name for f in fields(fbank.Config)}
    features = from_dict(fbank.Config, {k: v for k, v in record.items() if k in known})
    rate = 1000 / features.frame_shift / stack
    if not record:
        return [LabelSet("kmeans_audio", config.classes_audio, rate, options=AUDIO)]
    patches = audio_patches.of_features(
        features, statistics, stack=stack, whiten=config.whiten, limit=config.clip
    )
    return [LabelSet("kmeans_audio", config.classes_audio, rate, patches.hash, AUDIO)]


def _video(config: Config, statistics: dict | None) -> list[LabelSet]:
    if config.encoder.modalities == "audio" or not (statistics or {}).get("config"):
        return []
    frames, encoder = from_dict(FrameConfig, statistics["config"]), config.encoder
    patches = video_patches.Config(
        fps=frames.fps,
        size=frames.size,
        tubelet=encoder.tubelet,
        patch=encoder.patch,
        norm=config.vq_video_norm,
        mean=list(statistics["mean"]),
        std=list(statistics["std"]),
    )
    made = video_patches.build(patches)
    return [LabelSet("kmeans_video", config.classes_video, made.rate / made.shift, patches.hash, VIDEO)]
