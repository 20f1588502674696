"""Sizes of published encoders: wav2vec 2.0, XLSR and HuBERT, a tiny one for CPUs, and Conformers.

Values: the configuration files of fairseq (examples/wav2vec/config and examples/hubert/config) and the
released checkpoints. Conv bias and norms cannot be told from the size: HuBERT Large has the layer norms of
wav2vec 2.0 Large (LV-60) without its biases, and Large trained on LibriSpeech is Base, only larger.
The largest Conformer is that of Zhang et al. (2020, "Pushing the limits of semi-supervised learning"), about
600 million parameters, on samples instead of log-mel features; the smaller ones are ours.
"""

from __future__ import annotations

from typing import Any

EXTRACTOR = {
    "conv_channels": [512] * 7,
    "conv_kernels": [10, 3, 3, 3, 3, 2, 2],
    "conv_strides": [5, 2, 2, 2, 2, 2, 2],
}
REGULARISED = {"dropout": 0.1, "attention_dropout": 0.1, "input_dropout": 0.1}
PLAIN = {"dropout": 0.0, "attention_dropout": 0.0, "input_dropout": 0.0, "layer_drop": 0.0}
GROUP_NORM = {"extractor": "group", "conv_bias": False, "norm": "post", "normalize": "none"}
LAYER_NORM = {"extractor": "layer", "norm": "pre", "normalize": "fairseq", "feature_grad_mult": 1.0}
BASE = {"dim": 768, "layers": 12, "heads": 12, "feed_forward": 3072}
LARGE = {"dim": 1024, "layers": 24, "heads": 16, "feed_forward": 4096}
CONFORMER = {**EXTRACTOR, **LAYER_NORM, "conv_bias": True, "blocks": "conformer", "layer_drop": 0.0}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "dim": 144,
        "layers": 4,
        "heads": 4,
        "feed_forward": 576,
        "extractor": "layer",
        "conv_channels": [64, 64, 128, 128, 128, 128, 128],
        "conv_bias": True,
        "norm": "pre",
        "normalize": "fairseq",
        "pos_conv_kernel": 32,
        "attention_dropout": 0.0,
    },
    "base": {**EXTRACTOR, **GROUP_NORM, **BASE, **REGULARISED},
    "large_ls960": {**EXTRACTOR, **GROUP_NORM, **LARGE, **REGULARISED, "feature_grad_mult": 0.03},
    "large_lv60": {**EXTRACTOR, **LAYER_NORM, **LARGE, **PLAIN, "conv_bias": True},
    "xlsr53": {**EXTRACTOR, **LAYER_NORM, **LARGE, **REGULARISED, "layer_drop": 0.0, "conv_bias": True},
    "hubert_base": {**EXTRACTOR, **GROUP_NORM, **BASE, **REGULARISED},
    "hubert_large": {**EXTRACTOR, **LAYER_NORM, **LARGE, **PLAIN, "conv_bias": False},
    "hubert_xlarge": {
        **EXTRACTOR,
        **LAYER_NORM,
        **PLAIN,
        "dim": 1280,
        "layers": 48,
        "heads": 16,
        "feed_forward": 5120,
        "conv_bias": False,
    },
    "conformer_tiny": {
        **CONFORMER,
        "dim": 144,
        "layers": 4,
        "heads": 4,
        "feed_forward": 288,
        "conv_channels": [64, 64, 128, 128, 128, 128, 128],
        "conformer_kernel": 15,
        "attention_dropout": 0.0,
    },
    "conformer_base": {**CONFORMER, "dim": 512, "layers": 12, "heads": 8, "feed_forward": 2048},
    "conformer_xl": {
        **CONFORMER,
        "dim": 1024,
        "layers": 24,
        "heads": 8,
        "feed_forward": 4096,
        "conformer_kernel": 5,
    },
}
"""Preset -> what it differs in from `COMMON`."""

COMMON: dict[str, Any] = {
    **EXTRACTOR,
    "blocks": "transformer",
    "conformer_kernel": 31,
    "pos_conv_kernel": 128,
    "pos_conv_groups": 16,
    "activation_dropout": 0.0,
    "layer_drop": 0.05,
    "feature_grad_mult": 0.1,
    **REGULARISED,
}
"""Values of the presets that do not say otherwise."""


def preset_values(name: str) -> dict[str, Any]:
    """Every value that a preset decides; ValueError names the known ones."""
    if name not in PRESETS:
        raise ValueError(f"preset={name} is not one of {', '.join(PRESETS)}")
    return {**COMMON, **PRESETS[name]}
