"""ESPnet's configuration of encoders and decoders in our terms.

Names and defaults: ESPnet 202511, espnet2/asr/encoder and espnet2/asr/decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechkit.errors import InputError

Values = dict[str, Any]

FACTORS = {"conv2d": 4, "conv2d1": 1, "conv2d2": 2, "conv2d6": 6, "conv2d8": 8}
"""`input_layer` -> our subsampling."""

POSITIONS = {("rel_pos", "rel_selfattn", "latest"): "relative", ("abs_pos", "selfattn"): "sinusoidal"}
"""`pos_enc_layer_type`, `selfattention_layer_type` and `rel_pos_type` -> our positions."""

_BLOCKS = {
    "output_size": 256,
    "attention_heads": 4,
    "linear_units": 2048,
    "num_blocks": 6,
    "dropout_rate": 0.1,
}
_ALIKE = {
    "concat_after": False,
    "positionwise_layer_type": "linear",
    "qk_norm": False,
    "interctc_use_conditioning": False,
}
"""What all blocks of ours are like, which is ESPnet's default too."""


def _odd(conf: Mapping[str, Any], wanted: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """`key=value` of what is not as wanted; what is not said has the default, or is as wanted."""
    said = {key: conf.get(key, defaults.get(key, value)) for key, value in wanted.items()}
    return [f"{key}={said[key]}" for key, value in wanted.items() if said[key] != value]


def _shape(conf: Mapping[str, Any], layer: str) -> Values:
    sizes = {**_BLOCKS, **conf}
    return {
        "dim": sizes["output_size"],
        "layers": sizes["num_blocks"],
        "heads": sizes["attention_heads"],
        "feed_forward": sizes["linear_units"],
        "dropout": float(sizes["dropout_rate"]),
        "attention_dropout": float(sizes.get("attention_dropout_rate", 0.0)),
        "norm_eps": 1e-12,
        "subsampling": {"factor": FACTORS.get(layer, 4), "channels": None},
    }


def _conformer(conf: Mapping[str, Any]) -> tuple[Values, list[str]]:
    wanted = {
        **_ALIKE,
        "normalize_before": True,
        "macaron_style": True,
        "use_cnn_module": True,
        "activation_type": "swish",
        "zero_triu": False,
        "ctc_trim": False,
    }
    odd = _odd(conf, wanted, {"macaron_style": False})
    kinds = (conf.get("pos_enc_layer_type", "rel_pos"), conf.get("selfattention_layer_type", "rel_selfattn"))
    relative = conf.get("rel_pos_type", "legacy")
    positions = POSITIONS.get((*kinds, relative)) or POSITIONS.get(kinds)
    if positions is None:
        odd.append(f"{kinds[0]} with {kinds[1]}, rel_pos_type={relative}")
    layer, kernel = conf.get("input_layer", "conv2d"), conf.get("cnn_module_kernel", 31)
    odd += [f"input_layer={layer}"] if layer not in FACTORS else []
    own = {"name": "conformer", "kernel": kernel, "conv_norm": "batch", "positions": positions}
    return {**own, **_shape(conf, layer)}, odd


def _transformer(conf: Mapping[str, Any]) -> tuple[Values, list[str]]:
    layer = conf.get("input_layer", "conv2d")
    odd = _odd(conf, _ALIKE, {}) + ([f"input_layer={layer}"] if layer not in FACTORS else [])
    norm = "pre" if conf.get("normalize_before", True) else "post"
    own = {"name": "transformer", "norm": norm, "positions": "sinusoidal", "activation": "relu"}
    return {**own, **_shape(conf, layer)}, odd


def _rnn(conf: Mapping[str, Any]) -> tuple[Values, list[str]]:
    layers = conf.get("num_layers", 4)
    kept = list(conf.get("subsample", (2, 2, 1, 1)) or [])[:layers]
    return {
        "name": "blstm",
        "cells": conf.get("hidden_size", 320),
        "projection": conf.get("output_size", 320),
        "layers": layers,
        "strides": kept + [1] * (layers - len(kept)),
        "linear_end": True,
        "dropout": float(conf.get("dropout", 0.0)),
        "subsampling": {"kind": "none", "factor": 1},
    }, _odd(conf, {"rnn_type": "lstm", "bidirectional": True, "use_projection": True}, {})


def _vgg_rnn(conf: Mapping[str, Any]) -> tuple[Values, list[str]]:
    values, odd = _rnn(conf)
    return {**values, "strides": [], "subsampling": {"kind": "vgg", "factor": 4}}, odd + _odd(
        conf, {"in_channel": 1}, {}
    )


ENCODERS = {"conformer": _conformer, "transformer": _transformer, "rnn": _rnn, "vgg_rnn": _vgg_rnn}


def encoder_values(name: str, conf: Mapping[str, Any]) -> tuple[Values, str | None]:
    """Our encoder's configuration.

    Args:
        name: from ESPnet's table of encoders.
        conf: its `encoder_conf`.

    Returns:
        The values, and why it is ESPnet's own module that runs (`name: espnet`); None where ours does.

    Raises:
        InputError: an encoder that reads the CTC head between its blocks.
    """
    if conf.get("interctc_use_conditioning"):
        raise InputError(
            "interctc_use_conditioning=true: an encoder that reads its CTC head is not supported"
        )
    odd = [f"the encoder '{name}'"]
    if name in ENCODERS:
        values, odd = ENCODERS[name](conf)
        if not odd:
            return values, None
    return {"name": "espnet", "module": name, "options": dict(conf)}, ", ".join(odd)


# ---- decoders -------------------------------------------------------------------------------------------


def decoder_values(name: str, conf: Mapping[str, Any], dim: int) -> Values:
    """Our attention decoder's configuration.

    Args:
        name: from ESPnet's table of decoders: transformer or rnn.
        conf: its `decoder_conf`.
        dim: of the encoder's output.

    Raises:
        InputError: another decoder, or one with a part that ours has not.
    """
    if name not in ("transformer", "rnn"):
        raise InputError(f"the decoder '{name}' is not supported; transformer, rnn and transducer are")
    values, odd = (_transformer_decoder if name == "transformer" else _rnn_decoder)(conf, dim)
    if odd:
        raise InputError(f"the decoder '{name}' with {', '.join(odd)} is not supported")
    return values


def _transformer_decoder(conf: Mapping[str, Any], dim: int) -> tuple[Values, list[str]]:
    wanted = {"input_layer": "embed", "use_output_layer": True, "normalize_before": True}
    return {
        "name": "transformer",
        "dim": dim,
        "layers": conf.get("num_blocks", 6),
        "heads": conf.get("attention_heads", 4),
        "feed_forward": conf.get("linear_units", 2048),
        "dropout": float(conf.get("dropout_rate", 0.1)),
        "attention_dropout": float(conf.get("self_attention_dropout_rate", 0.0)),
        "norm_eps": 1e-12,
    }, _odd(conf, {**wanted, "concat_after": False, "qk_norm": False}, {})


def _rnn_decoder(conf: Mapping[str, Any], dim: int) -> tuple[Values, list[str]]:
    attention, cells = conf.get("att_conf") or {}, conf.get("hidden_size", 320)
    kind = attention.get("atype", "location")
    odd = _odd(conf, {"rnn_type": "lstm", "num_encs": 1, "replace_sos": False}, {})
    odd += _odd(attention, {"num_att": 1, "num_encs": 1, "han_mode": False}, {})
    odd += [f"atype={kind}"] if kind not in ("location", "add") else []
    return {
        "name": "las",
        "embedding": cells,
        "cells": cells,
        "layers": conf.get("num_layers", 1),
        "attention": "location" if kind == "location" else "additive",
        "attention_dim": attention.get("adim", 320),
        "channels": attention.get("aconv_chans", 10),
        "kernel": 2 * attention.get("aconv_filts", 100) + 1,
        "sharpness": 2.0,
        "context": bool(conf.get("context_residual", False)),
        "projection": None,
        "dropout": float(conf.get("dropout", 0.0)),
    }, odd


def transducer_values(conf: Mapping[str, Any], joint: Mapping[str, Any]) -> Values:
    """Our prediction and joint networks, from `decoder_conf` and `joint_net_conf`.

    Raises:
        InputError: parts that ours have not.
    """
    odd = _odd(conf, {"rnn_type": "lstm"}, {}) + _odd(joint, {"joint_activation_type": "tanh"}, {})
    if odd:
        raise InputError(f"a transducer with {', '.join(odd)} is not supported")
    cells = conf.get("hidden_size", 320)
    dropout = float(max(conf.get("dropout", 0.0), conf.get("dropout_embed", 0.0)))
    layers = conf.get("num_layers", 1)
    return {
        "prediction": {
            "name": "lstm",
            "embedding": cells,
            "cells": cells,
            "layers": layers,
            "dropout": dropout,
        },
        "joint": {"dim": joint.get("joint_space_size", 256)},
    }
