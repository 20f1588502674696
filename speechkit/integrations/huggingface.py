"""Hugging Face folders of wav2vec 2.0, XLSR, HuBERT and UniSpeech, with or without a CTC head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.files import read_json
from speechkit.integrations import shapes, vocabulary
from speechkit.integrations.foreign import Foreign, take_phones, take_vocabulary
from speechkit.integrations.names import HUGGINGFACE, rename_all

FAMILIES = {"wav2vec2": "wav2vec 2.0", "hubert": "HuBERT", "unispeech": "UniSpeech"}
"""`model_type` of config.json -> family; all have the same encoder."""

ARCHITECTURES = re.compile(r"(Wav2Vec2|Hubert|UniSpeech)(Model|ForPreTraining|ForCTC|ForMaskedLM)")
"""Classes whose weights are read; heads for classification of whole utterances are not."""

FIELDS = {
    "hidden_size": "dim",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "feed_forward",
    "feat_extract_norm": "extractor",
    "conv_dim": "conv_channels",
    "conv_kernel": "conv_kernels",
    "conv_stride": "conv_strides",
    "conv_bias": "conv_bias",
    "feat_proj_layer_norm": "feature_norm",
    "num_conv_pos_embeddings": "pos_conv_kernel",
    "num_conv_pos_embedding_groups": "pos_conv_groups",
    "hidden_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "feat_proj_dropout": "input_dropout",
    "layerdrop": "layer_drop",
    "layer_norm_eps": "norm_eps",
}
"""config.json's fields -> ours, the same values."""

DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "feat_extract_norm": "group",
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_proj_layer_norm": True,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.1,
    "layer_norm_eps": 1e-5,
}
"""What transformers takes for fields that config.json leaves out."""

LOSS = {
    "num_negatives": 100,
    "contrastive_logits_temperature": 0.1,
    "diversity_loss_weight": 0.1,
    "feat_quantizer_dropout": 0.0,
    "mask_time_prob": 0.05,
    "mask_time_length": 10,
}
"""Fields about pre-training, with what transformers takes when they are left out."""

SIDE_FILE = "pretraining_heads.safetensors"
"""Heads that transformers has no module for (HuBERT's), which our export puts beside model.safetensors."""

REQUIRED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "add_adapter": False,
    "adapter_attn_dim": None,
}
"""Options with one supported value, which is also their default."""


def is_huggingface(folder: Path) -> bool:
    """Whether a folder is one of transformers' `save_pretrained`."""
    path = folder / "config.json"
    return path.exists() and isinstance(config := read_json(path), dict) and "model_type" in config


def read(folder: Path, stated: Mapping[str, Any] | None = None) -> Foreign:
    """Reads a folder.

    Args:
        folder: with config.json and the weights.
        stated: encoder values that the user says; they win.

    Raises:
        InputError: another family, an option that SpeechKit lacks, weights missing or damaged, a vocabulary
            that is not the head's.
    """
    config = read_json(folder / "config.json")
    _check_config(config, folder / "config.json")
    tensors = read_tensors(folder)
    weights, unknown = rename_all(tensors, HUGGINGFACE)
    if (folder / SIDE_FILE).exists():
        weights.update(_read_file(folder / SIDE_FILE))
    weights = {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}
    normalize, notes = _normalize(folder, config)
    encoder = {**_encoder(config), "normalize": normalize, "pos_conv_norm": shapes.position_norm(weights)}
    family = FAMILIES[config["model_type"]]
    foreign = Foreign(
        f"Hugging Face, {family}",
        _kind(config, weights),
        {**encoder, **(stated or {})},
        weights,
        unknown=unknown,
        notes=notes,
    )
    if foreign.kind == "ctc":
        foreign.model["dropout"] = config.get("final_dropout", 0.1)
        rows = len(weights["head.weight"])
        take_vocabulary(foreign, vocabulary.read_huggingface(folder, config.get("pad_token_id", 0), rows))
    if foreign.kind == "wav2vec2" and "quantizer.codevectors" in weights:
        foreign.model.update(_pretraining(config))
    if foreign.kind == "unispeech":
        foreign.model.update(_pretraining(config), replace=config.get("replace_prob", 0.5))
        foreign.model["dropout"] = config.get("final_dropout", 0.1)
        take_phones(foreign, _phones(folder, config, weights))
    return foreign


def _phones(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Any:
    """The vocabulary of UniSpeech's phone head, where the folder has one of so many rows."""
    rows = len(weights.get("ctc_proj.weight", ()))
    path = folder / "vocab.json"
    if not path.exists() or len(read_json(path)) != rows:
        return None
    return vocabulary.read_huggingface(folder, config.get("pad_token_id", 0), rows)


def _kind(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    if "head.weight" in weights:
        return "ctc"
    if config["model_type"] == "unispeech" and {"quantizer.codevectors", "project_hid.weight"} <= {*weights}:
        return "unispeech"
    return "hubert" if config["model_type"] == "hubert" else "wav2vec2"


def _check_config(config: dict[str, Any], path: Path) -> None:
    if str(config["model_type"]) not in FAMILIES:
        raise InputError(
            f"{path}: model_type '{config['model_type']}' is not supported, only {', '.join(FAMILIES)}"
        )
    named = config.get("architectures") or []
    for architecture in named if isinstance(named, list) else [named]:
        if not ARCHITECTURES.fullmatch(str(architecture)):
            raise InputError(f"{path}: {architecture} has a head that SpeechKit does not read")
    for name, value in REQUIRED.items():
        if config.get(name, value) != value:
            raise InputError(f"{path}: {name}={config[name]!r} is not supported, only {value!r}")


def _encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    values = {**DEFAULTS, **{name: config[name] for name in DEFAULTS if config.get(name) is not None}}
    norm = "pre" if config.get("do_stable_layer_norm", False) else "post"
    return {**{ours: values[theirs] for theirs, ours in FIELDS.items()}, "norm": norm}


def _pretraining(config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says about the loss."""
    said = {name: config.get(name, value) for name, value in LOSS.items()}
    return {
        "contrastive": {
            "negatives": said["num_negatives"],
            "temperature": said["contrastive_logits_temperature"],
        },
        "diversity_weight": said["diversity_loss_weight"],
        "dropout_features": said["feat_quantizer_dropout"],
        "mask": {"probability": said["mask_time_prob"], "length": said["mask_time_length"]},
    }


def _normalize(folder: Path, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How waveforms are normalised, from preprocessor_config.json."""
    path = folder / "preprocessor_config.json"
    if not path.exists():
        value = "hf" if config.get("feat_extract_norm") == "layer" else "none"
        return value, [f"normalize={value}; there is no preprocessor_config.json to say"]
    values = read_json(path)
    rate = values.get("sampling_rate", 16000)
    if rate != 16000:
        raise InputError(f"{path}: speech of {rate} Hz; only 16000 is supported")
    return ("hf" if values.get("do_normalize", True) else "none"), []


# ---- tensors --------------------------------------------------------------------------------------------


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: safetensors before .bin, one file or the shards that an index lists.

    Raises:
        InputError: no weights, a shard that is missing or damaged, or a file that would run code.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).exists():
            return _read_file(folder / name)
        if index.exists():
            return _read_shards(folder, index)
    raise InputError(f"{folder}: no weights (model.safetensors or pytorch_model.bin, or an index of shards)")


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise InputError(f"{index}: no weight_map")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise InputError(f"{index}: refused: shard '{file}' is not a file of this folder")
        tensors.update(_read_file(folder / file))
    gone = sorted(set(places) - set(tensors))
    if gone:
        raise InputError(f"{index}: {len(gone)} tensors are in no shard ({', '.join(gone[:5])})")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".bin":
        return _read_bin(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged or cut short ({error})") from None


_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


def _read_bin(path: Path) -> dict[str, Tensor]:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch says damage with many kinds of errors
        found = _REFUSED.search(str(error))
        if found:
            raise InputError(f"{path}: refused: it names {found[1]}; nothing was run") from None
        why = (str(error).strip().splitlines() or [""])[0][:160]
        # torch's advice for what is no table of tensors is to switch this safety off.
        why = type(error).__name__ if not why or "weights_only" in why else why
        raise InputError(f"{path}: damaged or cut short ({why})") from None
    if not isinstance(value, dict) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise InputError(f"{path}: not a table of tensors")
    return dict(value)
