"""Starting from the encoder of another checkpoint: its configuration, features and statistics.

What the checkpoint says stands below the YAML file and the command line, so that a fine-tuning YAML does not
repeat it; what would silently make it another network is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from speechkit.config import differences, from_dict, load_kind, merge, read_values, read_yaml, to_dict
from speechkit.encoders import ENCODERS
from speechkit.errors import InputError
from speechkit.files import read_json
from speechkit.models.assets import Assets
from speechkit.train.checkpoint import checkpoints, find_checkpoint
from speechkit.train.run import RunConfig

MAY_DIFFER = tuple(
    f"model.encoder.{key}"
    for key in (
        "preset", "*dropout", "layer_drop", "feature_grad_mult", "checkpointing", "pad_policy", "lora*",
        "adapter*", "mask_embedding",
    )
)  # fmt: skip
"""Options of an encoder that another use of the same weights may set otherwise (globs)."""


def run_config(
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    init_encoder: str | Path | None = None,
    exp: str | Path | None = None,
) -> RunConfig:
    """Reads the configuration of a run, above that of the encoder it starts from.

    Args:
        file: YAML of differences, or None.
        overrides: `key=value` strings.
        init_encoder: checkpoint or experiment folder; becomes `init.encoder`, which is meant too.
        exp: where the run goes: its newest checkpoint speaks for a folder that is gone.

    Raises:
        InputError: no such checkpoint, or a configuration that its encoder does not go with.
        ProblemsError: see `speechkit.config.load_config`.
    """
    values, origins = read_values(file, overrides)
    if init_encoder is not None:
        values = merge(values, {"init": {"encoder": str(init_encoder)}})
    folder = _section(values, "init").get("encoder")
    if not isinstance(folder, str):
        return from_dict(RunConfig, values, origins)
    saved = _saved(folder, exp)
    model = {key: value for key, value in _section(values, "model").items() if key == "name"}
    below = {"model": {**model, "encoder": saved["model"]["encoder"]}, "features": saved["features"]}
    config = from_dict(RunConfig, merge(below, values), origins)
    _check(config, saved, folder)
    return config


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _saved(folder: str, exp: str | Path | None) -> dict[str, Any]:
    """The values of the checkpoint's configuration."""
    try:
        place = find_checkpoint(Path(folder))
    except InputError as error:
        own = checkpoints(Path(exp)) if exp is not None else []
        if not own:
            raise InputError(f"--init-encoder: {error}") from None
        place = own[-1][1]
    saved, _ = read_yaml(place / "config.yaml")
    if "name" not in _section(_section(saved, "model"), "encoder"):
        raise InputError(
            f"--init-encoder {folder}: its {_section(saved, 'model').get('name')} has no encoder"
        )
    return {**saved, "features": _section(saved, "features")}


def _check(config: RunConfig, saved: dict[str, Any], folder: str) -> None:
    """Refuses what makes another network of the same weights, or shows it other features."""
    if not hasattr(config.model, "encoder"):
        raise InputError(f"--init-encoder: model {config.model.name} has no encoder to start")
    there, here = saved["model"]["encoder"], config.model.encoder
    if here.name != there["name"]:
        raise InputError(
            f"--init-encoder {folder}: holds a {there['name']} encoder, and model.encoder.name={here.name}; "
            "leave model.encoder.name out, or start from another checkpoint"
        )
    complete = from_dict(load_kind(ENCODERS, here.name).Config, there)
    old = {"model": {"encoder": to_dict(complete)}, "features": saved["features"]}
    new = {"model": {"encoder": to_dict(here)}, "features": to_dict(config.features)}
    lines = [
        line
        for line in differences(old, new)
        if not any(fnmatchcase(line.split(":")[0], key) for key in (*MAY_DIFFER, *config.init.allow))
    ]
    if lines:
        raise InputError(
            f"--init-encoder {folder}: its encoder was trained otherwise ({'; '.join(lines)}); leave these "
            "out of the configuration, or list in init.allow what may differ"
        )


def take_statistics(config: RunConfig, assets: Assets, newest: Path | None) -> tuple[Assets, str]:
    """Adds the CMVN statistics of `init.encoder` where none were given.

    Args:
        config: of the run.
        assets: with statistics or without.
        newest: a checkpoint of the run, which speaks for the folder; None at the start.

    Returns:
        The assets, and where statistics were taken from, empty when they were not.
    """
    if config.init.encoder is None or assets.cmvn is not None:
        return assets, ""
    path = (newest or find_checkpoint(Path(config.init.encoder))) / "assets" / "cmvn.json"
    return (replace(assets, cmvn=read_json(path)), str(path)) if path.exists() else (assets, "")


def check_statistics(config: RunConfig, assets: Assets) -> None:
    """Compares the CMVN statistics of a run at its start with those that its encoder was trained with.

    Raises:
        InputError: they differ and `cmvn` is not in `init.allow`.
    """
    if config.init.encoder is None or "cmvn" in config.init.allow:
        return
    path = find_checkpoint(Path(config.init.encoder)) / "assets" / "cmvn.json"
    there = read_json(path) if path.exists() else {}
    here = assets.cmvn or {}
    if any(there.get(key) != here.get(key) for key in ("mean", "std")):
        what = (
            f"{path} holds others"
            if there
            else f"the encoder of {config.init.encoder} was trained without any"
        )
        raise InputError(f"--cmvn: {what}; leave --cmvn out, or list cmvn in init.allow")
