"""A clip as AV-BERT's clusters show it: before masking, masked, and as the model tells it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechkit.data.batch import Batch
from speechkit.errors import InputError
from speechkit.metrics.plots_av import mosaic
from speechkit.models.av_bert import AvBertModel
from speechkit.models.av_clips import Stretch, Tokens


class Told(NamedTuple):
    """What a model makes of one modality of a clip.

    Attributes:
        hidden: `(N,)` bool, tokens that were masked.
        truth: `(N,)` their clusters.
        answers: `(N,)` what they are taken for.
        stretch: of the video.
    """

    hidden: Tensor
    truth: Tensor
    answers: Tensor
    stretch: Stretch | None


@torch.no_grad()
def tell(model: AvBertModel, batch: Batch, name: str) -> Told:
    """What the tokens of one modality of a single clip are taken for, those that are seen too.

    Args:
        model: in evaluation mode.
        batch: one clip, with labels.
        name: "audio" or "video".

    Raises:
        InputError: there is nothing of this modality.
    """
    clips = model.draw(batch)
    tokens: Tokens | None = getattr(clips, name, None)
    if tokens is None or not int(tokens.lengths):
        raise InputError(f"utterance {batch.ids[0]}: no {name}, or a model that reads none")
    states = model.encoder(*model.patches(batch, clips))
    every = tokens._replace(predicted=torch.ones_like(tokens.predicted))
    found = model.predict(name, states, every, batch)
    return Told(tokens.hidden[0], found.targets.cpu(), found.best.cpu(), clips.stretch)


def mosaics(model: AvBertModel, batch: Batch, centres: np.ndarray, colours: dict) -> dict[str, np.ndarray]:
    """Rows of images of one clip, each `(T, H, W, 3)` in [0, 1], by name.

    Args:
        model: in evaluation mode.
        batch: one clip, with video and its labels.
        centres: `(K, P)` of the scaled patches.
        colours: `mean` and `std` that they were scaled with.

    Raises:
        InputError: no video, or centres of other patches.
    """
    config, told = model.config.encoder, tell(model, batch, "video")
    if centres.shape != (model.classes["video"], config.tubelet * config.patch**2 * 3):
        raise InputError(
            f"{len(centres)} centres of {centres.shape[1]} values are not of this model's patches"
        )
    shape = (config.tubelet, config.patch, config.patch, 3)
    pixels = centres.reshape(-1, *shape) * np.array(colours["std"]) + np.array(colours["mean"])
    middle = pixels[:, config.tubelet // 2]
    grid = (int(told.stretch.kept), *told.stretch.image)
    hidden, truth, answers = (x.numpy().reshape(grid) for x in (told.hidden, told.truth, told.answers))
    first = int(told.stretch.starts) * config.tubelet + config.tubelet // 2
    frames = batch["video"].values[0, first :: config.tubelet][: grid[0]].cpu().numpy() / 255
    return {
        "clip": frames,
        "clusters": mosaic(truth, middle),
        "masked": mosaic(truth, middle, hidden),
        "told": mosaic(np.where(hidden, answers, truth), middle),
    }
