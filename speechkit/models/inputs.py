"""The encoder of a system and the normalisation of what it reads."""

from __future__ import annotations

from typing import Any

from torch import nn

from speechkit.config import load_kind
from speechkit.encoders import ENCODERS
from speechkit.encoders.fine_tuning import has_mask_embedding
from speechkit.errors import InputError
from speechkit.layers.cmvn import GlobalCMVN
from speechkit.models.assets import Assets


def build_encoder(
    encoder: Any, input_dim: int | None, assets: Assets
) -> tuple[nn.Module, nn.Module, int | None]:
    """An encoder for the features that the CMVN statistics are of.

    Args:
        encoder: its `Config`, of one of `ENCODERS`.
        input_dim: feature dimension of the model's configuration, or None.
        assets: the CMVN statistics, which an encoder of samples does not use.

    Returns:
        The encoder, what normalises its input, and the feature dimension (None for an encoder of samples).

    Raises:
        InputError: the statistics have another dimension than `input_dim`.
    """
    if assets.cmvn is None:
        dim, cmvn = input_dim or 80, nn.Identity()
    else:
        mean, std = assets.cmvn["mean"], assets.cmvn["std"]
        dim, cmvn = len(mean), GlobalCMVN(mean, std)
    if input_dim not in (None, dim):
        raise InputError(
            f"model.input_dim={input_dim}, but the CMVN statistics have {dim} dimensions; make the "
            "statistics again from these features, or leave input_dim out"
        )
    built = load_kind(ENCODERS, encoder.name).build(encoder, dim)
    if built.takes == "features":
        return built, cmvn, dim
    return built, nn.Identity(), None


def build_masked_encoder(
    encoder: Any, input_dim: int | None, assets: Assets
) -> tuple[nn.Module, nn.Module, int | None]:
    """The same for an encoder whose frames will be masked; see `build_encoder`.

    Raises:
        InputError: it has no mask embedding, the statistics have another dimension than `input_dim`, or there
            is such a dimension for samples.
    """
    built = build_encoder(encoder, input_dim, assets)
    if input_dim is not None and built[2] is None:
        raise InputError(
            f"model.input_dim={input_dim}: is for features, and the {encoder.name} encoder takes "
            f"{built[0].takes}; leave it out"
        )
    if not has_mask_embedding(built[0]):
        raise InputError(
            f"pre-training by masked prediction: the {encoder.name} encoder was built without a mask "
            "embedding; set model.encoder.mask_embedding=true"
        )
    return built
