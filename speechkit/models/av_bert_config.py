"""The configuration of AV-BERT's pre-training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechkit.config import check_range
from speechkit.encoders import av_bert_config
from speechkit.frontends.patches import LIMIT
from speechkit.layers import av_mask


@dataclass
class Config:
    """AV-BERT; the defaults are those of the published audio-visual model."""

    name: str = "av_bert"
    """The model's kind."""

    input_dim: int | None = None
    """Bins of the features; null takes it from the CMVN statistics, without which nothing is trained."""

    encoder: av_bert_config.Config = field(default_factory=av_bert_config.Config)
    """The encoder; `modalities: audio` trains on audio alone."""

    video_statistics: str | None = None
    """video_stats.json of the training set, which `speechkit video` makes; checkpoints keep a copy."""

    whiten: Literal["per_bin", "scalar"] = "per_bin"
    """One mean and deviation for each bin of the features, or for all together."""

    clip: float = LIMIT
    """Whitened features are clipped to [-clip, clip]."""

    classes_audio: int = 4096
    """Clusters of audio patches; labels `kmeans_audio` lie in [0, K)."""

    classes_video: int = 8192
    """Clusters of video patches; labels `kmeans_video` lie in [0, K)."""

    vq_video_norm: Literal["none", "zscore"] = "none"
    """How each video patch was normalised before it was clustered, beside what the model does."""

    vocab: Literal["split", "joint"] = "split"
    """A softmax over the clusters of each modality, or one over all of both."""

    modality_weight: Literal["equal", "tokens"] = "equal"
    """The mean over masked audio tokens plus that over masked video tokens; or the mean over all of them, of
    which most are video."""

    mask: av_mask.Config = field(default_factory=av_mask.Config)
    """Which tokens are hidden, from update to update."""

    max_video_tokens: int | None = None
    """Most video tokens of a clip: a random stretch of time of so many is read, at its own positions; null
    reads all. The audio is read whole."""

    modality_dropout: float = 0.0
    """Probability that a clip of both modalities is trained on with one of them alone (not published)."""

    audio_dropout: float = 0.5
    """Of those clips, the share that keeps its video."""

    def __post_init__(self) -> None:
        check_range("clip", self.clip, 1e-3)
        for name in ("classes_audio", "classes_video"):
            check_range(name, getattr(self, name), 2, 2**16)
        for name in ("modality_dropout", "audio_dropout"):
            check_range(name, getattr(self, name), 0, 1)
        for name in ("input_dim", "max_video_tokens"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 1)
