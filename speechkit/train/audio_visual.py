"""The AV-BERT that a recogniser takes from its folder, and the pixels' statistics of its pre-training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from speechkit.config import differences, load_config, to_dict
from speechkit.errors import InputError
from speechkit.files import hash_bytes, hash_json, read_json
from speechkit.models.assets import Assets
from speechkit.models.context_cache import ContextCache
from speechkit.train.checkpoint import find_checkpoint, load_weights
from speechkit.train.data_sets import plain
from speechkit.train.run import RunConfig


def take_av_bert(config: RunConfig, assets: Assets, newest: Path | None) -> Assets:
    """Adds what `model.fusion` and `model.video_statistics` ask for.

    Args:
        config: of the run.
        assets: of the run, so far; statistics that were given must be AV-BERT's own.
        newest: a checkpoint of the run, which speaks for the folders; None at the start.

    Raises:
        InputError: no such AV-BERT, one of other features, or other statistics than its own.
    """
    fusion = getattr(config.model, "fusion", None)
    pixels = getattr(config.model, "video_statistics", None)
    if fusion is None and pixels is None:
        return assets
    if newest is not None:
        saved = Assets.load(newest / "assets")
        cmvn = saved.cmvn if fusion is not None else assets.cmvn
        return replace(assets, cmvn=cmvn, video=saved.video, av_bert=saved.av_bert)
    if pixels is not None:
        assets = replace(assets, video=_read_pixels(Path(pixels)))
    return assets if fusion is None else _read_av_bert(config, assets, Path(fusion.av_bert))


def _read_pixels(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path}: no such statistics; speechkit video makes them (model.video_statistics)")
    found = read_json(path)
    lists = [found.get(key) for key in ("mean", "std")] if isinstance(found, dict) else []
    if not lists or not all(isinstance(values, list) and len(values) == 3 for values in lists):
        raise InputError(f"{path}: no statistics of three colours; make them again with speechkit video")
    return found


def _read_av_bert(config: RunConfig, assets: Assets, folder: Path) -> Assets:
    place = find_checkpoint(folder)
    run = load_config(RunConfig, place / "config.yaml")
    if run.model.name != "av_bert":
        raise InputError(f"model.fusion.av_bert: {folder} is a model of kind {run.model.name}, not av_bert")
    here, there = to_dict(config.features), to_dict(run.features)
    if here != there:
        raise InputError(
            f"model.fusion.av_bert: {folder} was trained on other features (configuration "
            f"{hash_json(there)}, not {hash_json(here)}: {'; '.join(differences(there, here))}); give this "
            "run the same"
        )
    path = place / "assets" / "cmvn.json"
    if not path.is_file():
        raise InputError(f"{path}: the statistics of AV-BERT's features are missing")
    cmvn = read_json(path)
    if assets.cmvn is not None and any(assets.cmvn.get(key) != cmvn[key] for key in ("mean", "std")):
        raise InputError(f"--cmvn: AV-BERT was trained with other statistics ({path}); leave --cmvn out")
    known = {
        "encoder": to_dict(run.model.encoder),
        "whiten": run.model.whiten,
        "clip": run.model.clip,
        "features": hash_json(there),
    }
    return replace(assets, cmvn=cmvn, av_bert=known)


def start_av_bert(config: RunConfig, model: nn.Module) -> list[str]:
    """Puts AV-BERT's weights into a model that reads it.

    Returns:
        A line about them, none for other models.

    Raises:
        InputError: a tensor is missing or of another shape.
    """
    fusion = getattr(config.model, "fusion", None)
    if fusion is None:
        return []
    place = find_checkpoint(Path(fusion.av_bert))
    averaged = place / "ema.safetensors"
    weights = load_weights(averaged if averaged.exists() else place / "model.safetensors")
    own = model.fusion.av_bert.state_dict()
    found = {name: weights[f"encoder.{name}"] for name in own if f"encoder.{name}" in weights}
    wrong = [name for name in own if name not in found or found[name].shape != own[name].shape]
    if wrong:
        raise InputError(f"model.fusion.av_bert: {place} lacks {', '.join(wrong[:5])}, or has other shapes")
    model.fusion.av_bert.load_state_dict(found)
    return [f"AV-BERT: {place}: {len(found)} tensors, frozen"]


def open_cache(config: RunConfig, model: nn.Module, rank: int) -> None:
    """Opens `model.fusion.cache` for a training; a model that recognises does without.

    Args:
        config: of the run.
        model: with AV-BERT's weights in it.
        rank: number of this process.

    Raises:
        InputError: a cache of another AV-BERT, or for sound that is never the same twice.
    """
    fusion = getattr(config.model, "fusion", None)
    if fusion is None or fusion.cache is None:
        return
    if not plain(config):
        raise InputError(
            "model.fusion.cache: noise, rooms and gain (augment) change the sound in every epoch, and the "
            "cache would only grow; leave out either"
        )
    weights = model.fusion.av_bert.state_dict().values()
    content = hash_bytes(*(value.cpu().contiguous().numpy().tobytes() for value in weights))
    network = hash_json([content, to_dict(config.features), fusion.layer, fusion.chunk_seconds])
    model.fusion.cache = ContextCache(fusion.cache, network, model.fusion.av_bert.output_dim, rank)
