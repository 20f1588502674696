"""The configuration of HuBERT pre-training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from speechkit.config import check_range, kind
from speechkit.data.labels import label_table
from speechkit.encoders import ENCODERS
from speechkit.layers import span_mask


@dataclass
class Config:
    """HuBERT; the defaults are those of the Base model's first iteration."""

    name: str = "hubert"
    """The model's kind."""

    input_dim: int | None = None
    """Feature dimension; null takes it from the CMVN statistics, or 80 without any. Samples have none."""

    encoder: Any = kind(ENCODERS, "wav2vec2")
    """The encoder, of samples or of features; one of features needs `mask_embedding: true`."""

    labels: list[str] = field(default_factory=lambda: ["kmeans"])
    """Label sets that are predicted: `kmeans` is read from km.txt, `kmeans_<name>` from km_<name>.txt."""

    classes: list[int] = field(default_factory=lambda: [100])
    """Number of clusters of each set; labels lie in [0, K)."""

    label_rates: list[float] = field(default_factory=lambda: [100.0])
    """Labels a second of each set: 100 of MFCCs, 50 of blocks over 20 ms frames, 25 over 40 ms frames."""

    label_shifts: list[int] | None = None
    """Labels of each set that lie before the one of frame 0; null for none, as published. Frames of samples
    begin where their labels do; a window of 7 feature frames (subsampling by 4) is centred on label 3 of 100
    Hz, while label 0 is seen whole by the frame before, even when this one is masked."""

    input_rate: float | None = None
    """Samples, or feature frames, a second that the encoder reads; null is 16000, or 100."""

    mask: span_mask.Config = field(default_factory=lambda: span_mask.Config(probability=0.8))
    """Which frames are hidden."""

    head: Literal["cosine", "linear"] = "cosine"
    """Similarity to a vector for each class as published, or one linear layer."""

    projection_dim: int = 256
    """F, dimension in which frames and classes are compared: 256 in Base, 768 in Large, 1024 in X-Large."""

    untied: bool = True
    """With several label sets, each has a projection of its own (`untie_final_proj`)."""

    temperature: float = 0.1
    """tau, what cosines are divided by."""

    masked_weight: float = 1.0
    """w_m, weight of the loss over masked frames."""

    unmasked_weight: float = 0.0
    """w_u, weight of the loss over the other frames; 0 does not compute it, but see `log_interval`."""

    penalty_weight: float | None = None
    """w_f, weight of the mean square of the features before their norm; null is 10, the published value, with
    an encoder of samples, and no such term with others."""

    penalty_padding: bool = False
    """Whether frames of padding count in that mean, as published: where a batch is padded they cost its
    convolutions once more."""

    log_interval: int = 50
    """Updates between those at which unmasked frames are predicted too, to be watched; always on dev sets."""

    alarm_after: int = 1000
    """Updates before the log warns of predictions that collapsed or are trivial."""

    def __post_init__(self) -> None:
        lists = ("labels", "classes", "label_rates", *(["label_shifts"] if self.label_shifts else []))
        sizes = {name: len(getattr(self, name)) for name in lists}
        if len(set(sizes.values())) > 1 or not self.labels:
            raise ValueError(f"{', '.join(lists)} need one entry for each set, not {sizes}")
        for name in self.labels:
            if label_table(name) is None:
                raise ValueError(f"labels: '{name}' is not kmeans or kmeans_<name>")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels: a set is named twice in {self.labels}")
        if {"kmeans", "kmeans_kmeans"} <= set(self.labels):
            raise ValueError("labels: the terms of kmeans and kmeans_kmeans have the same names; rename one")
        for count in self.classes:
            check_range("classes", count, 2, 2**31 - 1)
        for shift in self.label_shifts or []:
            check_range("label_shifts", shift, 0)
        for rate in self.label_rates:
            check_range("label_rates", rate, 0.1)
        check_range("projection_dim", self.projection_dim, 1)
        check_range("temperature", self.temperature, 1e-4)
        check_range("log_interval", self.log_interval, 1)
        for name in ("masked_weight", "unmasked_weight", "penalty_weight", "input_rate", "alarm_after"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 0)
        if self.masked_weight == self.unmasked_weight == 0:
            raise ValueError("masked_weight and unmasked_weight are both 0: nothing would be learnt")
