"""Tiny checkpoints with random weights, for tests of what reads checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_training import make_tokenizer

from speechkit.config import load_config, load_kind
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import load_tokenizer
from speechkit.train.checkpoint import save_checkpoint
from speechkit.train.run import RunConfig

CONFORMER = {"name": "conformer", "dim": 16, "layers": 3, "heads": 2, "feed_forward": 24, "dropout": 0.3}
WAV2VEC2 = {
    **{"name": "wav2vec2", "preset": "tiny", "dim": 16, "layers": 2, "heads": 2, "feed_forward": 24},
    **{"conv_channels": [8] * 7, "pos_conv_kernel": 8, "pos_conv_groups": 2, "normalize": "none"},
}
STATISTICS = {"mean": [8.0] * 80, "std": [3.0] * 80, "frames": 1000}


def make_checkpoint(
    folder: Path, encoder: dict, seed: int = 0, model: str = "ctc", cmvn: bool = True
) -> Path:
    """A checkpoint with random weights and dropout in its configuration."""
    config = load_config(RunConfig, model={"name": model, "encoder": encoder})
    tokenizer = load_tokenizer(make_tokenizer(folder.with_name("tokens")))
    assets = Assets(tokenizer if model == "ctc" else None, STATISTICS if cmvn else None)
    torch.manual_seed(seed)
    built = load_kind(MODELS, model).build(config.model, assets)
    save_checkpoint(folder, built.state_dict(), config, assets)
    return folder
