"""From a configuration and data directories to everything the loop runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from speechkit.config import load_kind
from speechkit.data.feature_record import read_statistics
from speechkit.errors import InputError
from speechkit.files import hash_json
from speechkit.frontends import FEATURES
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import load_tokenizer
from speechkit.train.data_sets import DataSet, make_data_set, plain
from speechkit.train.distributed import Ranks
from speechkit.train.run import RunConfig
from speechkit.train.text_sets import check_dealing, check_text_options


@dataclass
class Setup:
    """What the loop runs on.

    Attributes:
        config: of the run.
        exp: the experiment folder.
        ranks: this process and the others.
        assets: tokenizer, CMVN ...
        model: on its device, initialised.
        train: training data.
        dev: dev data; one row a batch.
        inputs: hashes of data and assets.
        command: the command line, for reports.
    """

    config: RunConfig
    exp: Path
    ranks: Ranks
    assets: Assets
    model: nn.Module
    train: DataSet
    dev: DataSet
    inputs: dict[str, str]
    command: str = ""


def load_assets(tokenizer: str | Path | None, cmvn: str | Path | None, features: object = None) -> Assets:
    """Reads a tokenizer folder and CMVN statistics of these features, each optional."""
    return Assets(
        load_tokenizer(Path(tokenizer)) if tokenizer else None,
        read_statistics(Path(cmvn), features) if cmvn else None,
    )


def build_model(config: RunConfig, assets: Assets) -> nn.Module:
    """The model with random weights that depend on the seed alone."""
    torch.manual_seed(config.seed)
    return load_kind(MODELS, config.model.name).build(config.model, assets)


def prepare(
    config: RunConfig,
    exp: Path,
    ranks: Ranks,
    assets: Assets,
    train: Sequence[str | Path],
    dev: Sequence[str | Path],
    command: str = "",
) -> Setup:
    """Reads the data sets, checks every utterance against the model, and plans the batches.

    Args:
        config: of the run.
        exp: the experiment folder; ledgers are written there.
        ranks: this process and the others.
        assets: from `load_assets`; statistics that the model has no use for are left out of the result.
        train: training directories, one source each.
        dev: dev directories.
        command: the command line, for reports.

    Raises:
        InputError: data that cannot be used; see `choose`.
    """
    _check_augmentation(config)
    model = build_model(config, assets)
    if model.requires:
        check_dealing("plan", config.plan.micro_batches, ranks)
    else:
        check_text_options(config)
    if "features" not in model.requires:
        assets = replace(assets, cmvn=None)
    if "tokens" in (*model.requires, *getattr(model, "text_requires", ())) and assets.tokenizer is None:
        raise InputError(f"model {config.model.name} needs targets; give --tokenizer")
    _check_dimension(model, config)
    if config.plan.crops and "tokens" in model.requires:
        raise InputError("plan: crops are for pre-training; a transcript cannot be cut with the audio")
    if getattr(model, "label_sets", ()) and list(config.augment.speeds) != [1.0]:
        raise InputError("augment.speeds: frame labels do not follow a change of speed; leave it at [1.0]")
    sets = {
        name: make_data_set(name, config, exp, ranks, assets, model, folders)
        for name, folders in (("train", train), ("dev", dev))
    }
    if config.loop.distributed == "ddp" and len(sets["train"].plan.parts) > 1:
        raise InputError("loop.distributed=ddp: is not for speech and text in one run; leave it at flat")
    inputs = {name: data.hash for name, data in sets.items()}
    inputs["assets"] = _assets_hash(assets)
    return Setup(config, exp, ranks, assets, model.to(ranks.device), **sets, inputs=inputs, command=command)


def _check_dimension(model: nn.Module, config: RunConfig) -> None:
    made = load_kind(FEATURES, config.features.name).build(config.features).dim
    taken = getattr(model, "input_dim", made)
    if taken not in (made, None):
        raise InputError(
            f"features: {config.features.name} makes {made} dimensions, but the model takes {taken}; "
            f"give --cmvn of these features, or model.input_dim={made} without it"
        )


def _check_augmentation(config: RunConfig) -> None:
    """Outputs of a frozen encoder are dumped once: changes of the waveform would not reach them."""
    if config.features.name == "encoder" and not (plain(config) and list(config.augment.speeds) == [1.0]):
        raise InputError(
            "augment: changes the waveform, and these features are the dumped outputs of a frozen encoder; "
            "leave it out (model.specaugment and model.masking work), or fine-tune with --init-encoder"
        )


def _assets_hash(assets: Assets) -> str:
    tokenizer = assets.tokenizer
    cmvn = assets.cmvn and {key: assets.cmvn[key] for key in ("mean", "std", "frames") if key in assets.cmvn}
    parts = [tokenizer and [tokenizer.vocab, tokenizer.normaliser.hash], cmvn]
    further = [assets.bert and assets.bert.hash, assets.video, assets.av_bert]
    return hash_json([*parts, *(part for part in further if part is not None)])
