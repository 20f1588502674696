"""fairseq's configurations in SpeechKit's terms."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from speechkit.errors import InputError
from speechkit.integrations import shapes

FIELDS = {
    "encoder_embed_dim": "dim",
    "encoder_layers": "layers",
    "encoder_attention_heads": "heads",
    "encoder_ffn_embed_dim": "feed_forward",
    "conv_bias": "conv_bias",
    "conv_pos": "pos_conv_kernel",
    "conv_pos_groups": "pos_conv_groups",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "dropout_input": "input_dropout",
    "encoder_layerdrop": "layer_drop",
    "feature_grad_mult": "feature_grad_mult",
}
"""fairseq's fields -> ours, the same values."""

_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layer_drop")
_DEFAULTS = {
    "encoder_embed_dim": 768,
    "encoder_layers": 12,
    "encoder_attention_heads": 12,
    "encoder_ffn_embed_dim": 3072,
    "extractor_mode": "default",
    "conv_bias": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "layer_norm_first": False,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
}
"""Values that fairseq assumes where a field is absent (its `base_architecture`)."""


def encoder_values(
    whole: Any, tuned: bool, weights: Mapping[str, Tensor], stated: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The encoder's configuration.

    Args:
        whole: the file's `args` or `cfg` as plain values.
        tuned: fine-tuned; the sizes are then those of its `w2v_args`.
        weights: under SpeechKit's names, for what the configuration lacks.
        stated: values that the user says; they win.

    Returns:
        The values, and a line for each that is an assumption.

    Raises:
        InputError: not a configuration of an encoder that SpeechKit has.
    """
    model, task = _sections(whole)
    pretrained = model.get("w2v_args") if tuned else whole
    if not isinstance(pretrained, dict):
        values, notes = shapes.encoder_values(
            weights, {**_normalize(task, model), **_dropouts(model), **stated}
        )
        return values, ["no configuration of the pre-training (w2v_args) in the file", *notes]
    inner, inner_task = _sections(pretrained)
    if (
        inner.get("activation_fn", "gelu") != "gelu"
        or inner.get("layer_type", "transformer") != "transformer"
    ):
        raise InputError("only Transformer blocks with GELU are supported")
    if inner_task.get("sample_rate", 16000) not in (16000, None):
        raise InputError(f"trained on speech of {inner_task['sample_rate']} Hz; only 16000 is supported")
    values = {
        **_sizes({**_DEFAULTS, **{key: value for key, value in inner.items() if value is not None}}),
        **(_dropouts(model) if tuned else {}),
        "pos_conv_norm": shapes.position_norm(weights),
    }
    normalize = _normalize(inner_task, inner) or _normalize(task, model)
    notes = []
    if not normalize:
        normalize = {"normalize": "fairseq" if values["extractor"] == "layer" else "none"}
        notes = [f"normalize={normalize['normalize']}, which the file does not say"]
    return {**values, **normalize, **stated}, notes


def pretraining_values(whole: Any, kind: str) -> dict[str, Any]:
    """What a pre-trained model's configuration says about its loss, for SpeechKit's model of this kind."""
    model, task = _sections(whole)
    criterion = whole.get("criterion") if isinstance(whole.get("criterion"), dict) else whole
    weights = _numbers(criterion.get("loss_weights"))
    mask = {"probability": model.get("mask_prob"), "length": model.get("mask_length")}
    if kind == "hubert":
        values = {"temperature": model.get("logit_temp"), "penalty_weight": weights[0] if weights else None}
        return _said({**values, "mask": mask})
    schedule = dict(zip(("start", "end", "decay"), _numbers(model.get("latent_temp"))))
    values = {
        "dropout_features": model.get("dropout_features"),
        "contrastive": {"negatives": model.get("num_negatives"), "temperature": model.get("logit_temp")},
        "quantizer": {f"temperature_{name}": value for name, value in schedule.items()},
        "diversity_weight": weights[0] if weights else None,
        "penalty_weight": weights[1] if len(weights) > 1 else None,
    }
    return _said({**values, "mask": mask})


_WHOLE = ("negatives", "length")


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """The numbers among the values, and the sections that hold some."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and (inner := _said(value)):
            kept[name] = inner
        elif type(value) in (int, float):
            kept[name] = int(value) if name in _WHOLE else float(value)
    return kept


def label_rate(whole: Any) -> float | None:
    """Labels a second of HuBERT's targets, where the configuration has the number."""
    for section in _sections(whole)[::-1]:
        rate = section.get("label_rate")
        if type(rate) in (int, float) and rate > 0:
            return float(rate)
    return None


def _numbers(value: Any) -> list[float]:
    """The numbers of a list, or of its text as old command lines have it."""
    if isinstance(value, str):
        value = re.findall(r"[-+.\deE]+", value)
    try:
        return [float(number) for number in value or ()]
    except (TypeError, ValueError):
        return []


def _sections(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model and task of a nested configuration; the flat one of old files is both."""
    if not isinstance(config, dict):
        raise InputError("its configuration is not a table")
    model = config.get("model")
    if not isinstance(model, dict):
        return config, config
    task = config.get("task")
    return model, task if isinstance(task, dict) else {}


def _sizes(fields: dict[str, Any]) -> dict[str, Any]:
    modes = {"default": "group", "layer_norm": "layer"}
    mode = str(fields["extractor_mode"])
    if mode not in modes:
        raise InputError(f"extractor_mode={mode} is neither default nor layer_norm")
    stack = parse_conv_layers(fields["conv_feature_layers"])
    values = {ours: fields[theirs] for theirs, ours in FIELDS.items() if theirs in fields}
    return {
        **values,
        "extractor": modes[mode],
        "norm": "pre" if fields["layer_norm_first"] else "post",
        "conv_channels": [layer[0] for layer in stack],
        "conv_kernels": [layer[1] for layer in stack],
        "conv_strides": [layer[2] for layer in stack],
    }


def _dropouts(tuned: dict[str, Any]) -> dict[str, float]:
    """What fine-tuning overrides."""
    named = {
        **{theirs: ours for theirs, ours in FIELDS.items() if ours in _DROPOUTS},
        "layerdrop": "layer_drop",
    }
    numbers = {ours: tuned.get(theirs) for theirs, ours in named.items()}
    return {name: float(value) for name, value in numbers.items() if type(value) in (int, float)}


def _normalize(*sections: dict[str, Any]) -> dict[str, str]:
    """Whether waveforms are normalised, from the first section that says so (not by reference)."""
    for section in sections:
        if isinstance(section.get("normalize"), bool):
            return {"normalize": "fairseq" if section["normalize"] else "none"}
    return {}


LIMIT = 100
"""Most convolutions of an encoder."""


def parse_conv_layers(text: Any) -> list[tuple[int, int, int]]:
    """Channels, kernel and stride of each convolution, from fairseq's expression such as
    `[(512, 10, 5)] + [(512, 3, 2)] * 4`.

    Only lists, tuples of three numbers, `+` and `*` are understood; nothing is evaluated.

    Raises:
        InputError: anything else.
    """
    try:
        layers = _list(ast.parse(str(text).strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        layers = []
    if not 0 < len(layers) <= LIMIT:
        raise InputError(
            f"conv_feature_layers: '{str(text)[:80]}' is not a list of (channels, kernel, stride)"
        )
    return layers


def _list(node: ast.expr) -> list[tuple[int, int, int]]:
    layers = _sum(node)
    if len(layers) > LIMIT:
        raise ValueError("too many")
    return layers


def _sum(node: ast.expr) -> list[tuple[int, int, int]]:
    if isinstance(node, ast.List):
        return [_layer(item) for item in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _list(node.left) + _list(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        layers, count = (
            (node.left, node.right) if isinstance(node.right, ast.Constant) else (node.right, node.left)
        )
        return _list(layers) * min(_number(count), LIMIT + 1)
    raise ValueError("neither a list nor a sum or multiple of lists")


def _layer(node: ast.expr) -> tuple[int, int, int]:
    if not isinstance(node, (ast.Tuple, ast.List)) or len(node.elts) != 3:
        raise ValueError("not three numbers")
    channels, kernel, stride = map(_number, node.elts)
    return channels, kernel, stride


def _number(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value > 0:
        return node.value
    raise ValueError("not a positive whole number")
