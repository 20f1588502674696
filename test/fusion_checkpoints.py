"""Checkpoints of tiny systems of a speech encoder and a BERT, see `fusion_models`."""

from __future__ import annotations

from pathlib import Path

from fusion_models import ENCODER, make_model
from tiny_linguistic import make_assets, shake
from torch import nn

from speechkit.config import load_config, load_kind
from speechkit.models import MODELS
from speechkit.train.checkpoint import save_checkpoint
from speechkit.train.run import RunConfig


def make_checkpoint(folder: Path, kind: str, *options: str) -> tuple[Path, nn.Module]:
    """A checkpoint in `<folder>/final` of a model whose weights were shaken.

    Args:
        folder: to be made.
        kind: of `MODELS`.
        options: of the model's configuration; units are shared.

    Returns:
        The checkpoint, and the model in evaluation.
    """
    folder.mkdir(parents=True)
    model = shake(make_model(load_kind(MODELS, kind), folder / "bert", *options)).eval()
    values = (f"name={kind}", *ENCODER, "bert.dropout=0", *options)
    config = load_config(RunConfig, overrides=[f"model.{value}" for value in values])
    save_checkpoint(folder / "final", model.state_dict(), config, make_assets(folder / "bert"))
    return folder / "final", model
