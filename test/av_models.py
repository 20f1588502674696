"""Tiny AV-BERTs, their batches, and recognisers that read them."""

from __future__ import annotations

import torch

from speechkit.config import from_dict, to_dict
from speechkit.data.batch import Batch, pad
from speechkit.encoders import av_bert_config
from speechkit.layers import av_mask
from speechkit.models import av_bert, ctc, transducer
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import build_tokenizer

BINS, PATCH = 8, 4
CMVN = {"mean": [0.5] * BINS, "std": [1.5] * BINS, "frames": 100}
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.25, 0.3, 0.2]}
ENCODER = {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24, "patch": PATCH, "grid": [5, 2, 3]}


def encoder_config(**changes) -> av_bert_config.Config:
    """16 channels, 2 blocks; tables for 5 slices of 2 x 3 patches."""
    return from_dict(av_bert_config.Config, {**ENCODER, **changes})


def make_model(seed=0, mask=None, encoder=None, **changes):
    """A model in float64 without dropout, 12 clusters of audio and 20 of video."""
    torch.manual_seed(seed)
    config = av_bert.Config(
        encoder=encoder_config(dropout=0.0, **(encoder or {})),
        mask=av_mask.Config(**{"stage_updates": 10, **(mask or {})}),
        classes_audio=12,
        classes_video=20,
        **changes,
    )
    return av_bert.build(config, Assets(cmvn=CMVN, video=PIXELS)).double()


def make_batch(frames=(60, 33, 20), pictures=(15, 9, 0), seed=0) -> Batch:
    """Clips of 8 x 12 pixels, 6 patches a slice, with a label for every token; 0 pictures are no video."""
    made = torch.Generator().manual_seed(seed)
    size, tokens = (2 * PATCH, 3 * PATCH, 3), [n // 3 * 6 for n in pictures]
    fields = {
        "features": pad([torch.randn(n, BINS, generator=made, dtype=torch.float64) for n in frames]),
        "kmeans_audio": pad([torch.randint(0, 12, (n // 3,), generator=made) for n in frames]),
        "video": pad(
            [torch.randint(0, 256, (n, *size), generator=made, dtype=torch.uint8) for n in pictures]
        ),
        "kmeans_video": pad([torch.randint(0, 20, (n,), generator=made) for n in tokens]),
    }
    return Batch([f"u{i}" for i in range(len(frames))], torch.arange(5, 5 + len(frames)), None, fields)


def known(encoder=None) -> dict:
    """What a recogniser's assets hold of an AV-BERT."""
    return {"encoder": to_dict(encoder or encoder_config()), "whiten": "per_bin", "clip": 1.2, "features": ""}


def make_recogniser(kind="ctc", fusion=None, encoder=None, seed=0, **changes):
    """A recogniser of two Conformer blocks in float64; one of characters of `abc`."""
    torch.manual_seed(seed)
    module = {"ctc": ctc, "transducer": transducer}[kind]
    values = {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24, "kernel": 5, "dropout": 0.0}
    values |= {"name": "conformer", "subsampling": {"kind": "conv1d", "factor": 6}, **(encoder or {})}
    if fusion is not None:
        changes["fusion"] = {"av_bert": "nowhere", **fusion}
    config = from_dict(module.Config, {"name": kind, "encoder": values, **changes})
    assets = Assets(build_tokenizer("char", ["abc"]), CMVN, av_bert=known() if fusion is not None else None)
    return module.build(config, assets).double()


def spoken(frames=(90, 61, 40), seed=0) -> Batch:
    """Features and a few tokens each."""
    made = torch.Generator().manual_seed(seed)
    fields = {
        "features": pad([torch.randn(n, BINS, generator=made, dtype=torch.float64) for n in frames]),
        "tokens": pad([torch.randint(2, 5, (2,), generator=made) for _ in frames]),
    }
    return Batch([f"u{i}" for i in range(len(frames))], torch.arange(5, 5 + len(frames)), None, fields)
