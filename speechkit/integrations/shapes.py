"""What an encoder's weights say about its configuration, for files without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from speechkit.errors import InputError
from speechkit.integrations.names import POSITIONS, WEIGHT_V

HEADS = {768: 12, 1024: 16, 1280: 16}
"""Dimension of the published models -> attention heads, which no shape tells."""

STRIDES = {(10, 3, 3, 3, 3, 2, 2): [5, 2, 2, 2, 2, 2, 2]}
"""Kernels of the published models -> strides, which no shape tells."""


def encoder_values(
    weights: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The encoder's configuration from the shapes of its weights.

    Args:
        weights: under SpeechKit's names.
        stated: values that are known otherwise; they win.

    Returns:
        The values, and a line for each that is an assumption.

    Raises:
        InputError: no encoder, or a value that the shapes do not tell and `stated` lacks.
    """
    convolution = "encoder.feature_extractor.conv_layers.{}.conv.weight"
    shapes = []
    while (name := convolution.format(len(shapes))) in weights:
        shapes.append(weights[name].shape)
    positions = weights.get(WEIGHT_V, weights.get(f"{POSITIONS}.weight"))
    first = weights.get("encoder.encoder.layers.0.feed_forward.intermediate_dense.weight")
    if not shapes or positions is None or first is None:
        raise InputError("no wav2vec 2.0 or HuBERT encoder: convolutions, positions or blocks are missing")
    dim, kernels = first.shape[1], [shape[2] for shape in shapes]
    layer_norms = "encoder.feature_extractor.conv_layers.1.layer_norm.weight" in weights
    values = {
        "dim": dim,
        "layers": sum(name.endswith(".attention.q_proj.weight") for name in weights),
        "feed_forward": first.shape[0],
        "extractor": "layer" if layer_norms else "group",
        "conv_channels": [shape[0] for shape in shapes],
        "conv_kernels": kernels,
        "conv_bias": convolution.format(0).replace("weight", "bias") in weights,
        "pos_conv_kernel": positions.shape[2],
        "pos_conv_groups": dim // positions.shape[1],
        "pos_conv_norm": position_norm(weights),
    }
    assumed = {
        "heads": HEADS.get(dim),
        "conv_strides": STRIDES.get(tuple(kernels)),
        "norm": "pre" if layer_norms else "post",
        "normalize": "fairseq" if layer_norms else "none",
    }
    for name, value in assumed.items():
        if value is None and name not in stated:
            raise InputError(f"the weights do not tell the encoder's {name}; say model.encoder.{name}=...")
    lines = [
        f"{name}={value}, which the file does not say"
        for name, value in assumed.items()
        if name not in stated
    ]
    return {**values, **assumed, **stated}, lines


def position_norm(weights: Mapping[str, Any]) -> str:
    """`pos_conv_norm` of an encoder with these names."""
    return "batch" if "encoder.encoder.pos_conv_embed.batch_norm.running_mean" in weights else "weight"


def quantizer_sizes(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes of the heads of wav2vec 2.0's pre-training, whose names all toolkits share but fairseq.

    Codevectors are `(1, G V, D / G)`, the projection of codewords is `(F, D)`.

    Returns:
        `groups` G, `entries` V, `dim` D and `projection` F; empty when the heads are not there.
    """
    codes, projection = weights.get("quantizer.codevectors"), weights.get("project_q.weight")
    if codes is None or projection is None:
        return {}
    out, dim = projection.shape
    groups = max(dim // codes.shape[-1], 1)
    return {"groups": groups, "entries": codes.shape[-2] // groups, "dim": dim, "projection": out}


def label_values(weights: Mapping[str, Tensor], classes: list[int] | None = None) -> dict[str, Any]:
    """The configuration of HuBERT's heads: `final_proj` `(F n, D)` and `label_embs` `(sum of K, F)`.

    Args:
        weights: under SpeechKit's names.
        classes: K of each label set, where a file says; None takes n sets of the same size.

    Returns:
        Values of the model's configuration; empty when the heads are not there.

    Raises:
        InputError: the classes are not those of the table, or cannot be told.
    """
    labels, projection = weights.get("label_embs"), weights.get("final_proj.weight")
    if labels is None or projection is None:
        return {}
    rows, dim = labels.shape
    sets = len(classes) if classes else projection.shape[0] // dim
    if classes is None and (not sets or rows % sets):
        raise InputError(f"label_embs: {rows} rows are not those of {sets} label sets of one size")
    classes = classes or [rows // sets] * sets
    if sum(classes) != rows:
        raise InputError(f"label_embs: {rows} rows, but {sum(classes)} clusters")
    names = ["kmeans", *(f"kmeans_{n}" for n in range(2, sets + 1))]
    untied = projection.shape[0] == dim * sets
    return {"labels": names, "classes": classes, "projection_dim": dim, "untied": untied}
