"""The BERT of a run: its architecture and vocabulary at the start, and the weights that it begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from speechkit.config import load_kind
from speechkit.data.manifest import read_texts
from speechkit.integrations.bert import load_pretrained, make_assets
from speechkit.models import MODELS
from speechkit.models.assets import Assets
from speechkit.train.run import RunConfig


def take_bert(
    config: RunConfig, assets: Assets, newest: Path | None, folders: Sequence[str | Path]
) -> Assets:
    """Adds the BERT that `model.bert` asks for, for the text of the training directories.

    Args:
        config: of the run.
        assets: of the run, so far.
        newest: a checkpoint of the run, which speaks for the BERT's folder; None at the start.
        folders: training directories.

    Raises:
        InputError: no such BERT, or one without a vocabulary for this text.
    """
    wanted = getattr(config.model, "bert", None)
    if wanted is None:
        return assets
    if newest is not None:
        return replace(assets, bert=Assets.load(newest / "assets").bert)
    sentences = read_texts(folders).tables["text"]
    texts = [sentences[i] for i in range(len(sentences))]
    make = getattr(load_kind(MODELS, config.model.name), "bert_assets", None)
    if make:
        return replace(assets, bert=make(config.model, texts, assets.tokenizer))
    normaliser = assets.tokenizer.normaliser if assets.tokenizer is not None else None
    made = make_assets(wanted, texts, normaliser)
    return replace(assets, bert=made)


def start_bert(config: RunConfig, assets: Assets, model: nn.Module) -> list[str]:
    """Puts pre-trained weights into `model.bert` where `model.bert.init` says so.

    Returns:
        Lines about them, none for a BERT that keeps its random weights.

    Raises:
        InputError: see `speechkit.integrations.bert.load_pretrained`.
    """
    wanted = getattr(config.model, "bert", None)
    if wanted is None or wanted.init == "random":
        return []
    account = load_pretrained(model.bert, assets.bert.vocab, wanted.folder, wanted.allow_new_head)
    if hasattr(model, "copy_bert"):
        model.copy_bert()
    return [f"init bert: {wanted.folder}: {line}" for line in account.lines()]
