"""State dicts of torchaudio's `Wav2Vec2Model` and `HuBERTPretrainModel`, both ways; torchaudio is not needed.

A folder has `model.pt` (a state dict), `config.json` (the arguments of `torchaudio.models.wav2vec2_model`)
and, with a CTC head, `labels.txt`. A state dict alone is read too; what it does not tell is assumed and said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.files import read_json, write_text
from speechkit.integrations import shapes, vocabulary
from speechkit.integrations.foreign import Foreign, take_vocabulary
from speechkit.integrations.names import TORCHAUDIO, rename_all, to_torchaudio
from speechkit.integrations.torch_file import LazyTensor, TorchFile
from speechkit.text.char import SPACE
from speechkit.text.tokenizer import Tokenizer

MODES = {"group_norm": "group", "layer_norm": "layer"}
FIELDS = {
    "encoder_embed_dim": "dim",
    "encoder_num_layers": "layers",
    "encoder_num_heads": "heads",
    "encoder_ff_interm_features": "feed_forward",
    "encoder_pos_conv_kernel": "pos_conv_kernel",
    "encoder_pos_conv_groups": "pos_conv_groups",
    "extractor_conv_bias": "conv_bias",
    "encoder_projection_dropout": "input_dropout",
    "encoder_attention_dropout": "attention_dropout",
    "encoder_ff_interm_dropout": "activation_dropout",
    "encoder_dropout": "dropout",
    "encoder_layer_drop": "layer_drop",
}
"""Arguments of `wav2vec2_model` -> ours, the same values."""


def is_torchaudio(value: Any) -> bool:
    """Whether a file's content is a bare table of tensors with torchaudio's names."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(tensor, LazyTensor) for tensor in value.values())
        and any("encoder.transformer." in str(name) for name in value)
    )


def read(file: TorchFile, labels: Path | None = None, stated: Mapping[str, Any] | None = None) -> Foreign:
    """Reads a state dict, with the config.json and labels.txt beside it if there are any.

    Args:
        file: the opened file.
        labels: tokens of the CTC head, a line each; None looks beside the file.
        stated: encoder values that the user says; they win.

    Raises:
        InputError: no encoder, values that nothing tells, or labels that are missing or not the head's.
    """
    tensors = {name.removeprefix("wav2vec2."): tensor for name, tensor in file.tensors(file.value).items()}
    weights, unknown = rename_all(tensors, TORCHAUDIO)
    weights = {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}
    config = file.path.with_name("config.json")
    known = _encoder(read_json(config), config) if config.exists() else {}
    try:
        values, notes = shapes.encoder_values(weights, {**known, **(stated or {})})
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None
    pretrained = "label_embs" in weights or "final_proj.weight" in weights
    kind = "ctc" if "head.weight" in weights else "hubert" if pretrained else "wav2vec2"
    foreign = Foreign("torchaudio", kind, values, weights, unknown=unknown, notes=notes)
    if kind == "ctc":
        labels = labels or file.path.with_name("labels.txt")
        if not labels.exists():
            raise InputError(
                f"{file.path}: a CTC head without labels; put labels.txt beside it (a token a line, the "
                "blank first, | between words) or say --dictionary"
            )
        take_vocabulary(foreign, vocabulary.read_labels(labels))
    return foreign


def _encoder(config: Any, path: Path) -> dict[str, Any]:
    try:
        return _arguments(config)
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the arguments of torchaudio's wav2vec2_model ({type(error).__name__}: {error})"
        ) from None


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    stack = config["extractor_conv_layer_config"]
    values = {FIELDS[name]: value for name, value in config.items() if name in FIELDS}
    known = {key: config[key] for key in ("normalize",) if key in config}
    return {
        **values,
        **known,
        "extractor": MODES[config["extractor_mode"]],
        "norm": "pre" if config["encoder_layer_norm_first"] else "post",
        "conv_channels": [layer[0] for layer in stack],
        "conv_kernels": [layer[1] for layer in stack],
        "conv_strides": [layer[2] for layer in stack],
    }


def write(
    folder: Path, model: Any, state: Mapping[str, Tensor], tokenizer: Tokenizer | None = None
) -> list[str]:
    """Writes a folder that `read` takes back.

    Args:
        folder: an existing, empty one.
        model: configuration of the model (its `name` and `encoder`).
        state: the model's `state_dict()`.
        tokenizer: of a CTC head.

    Returns:
        Lines about what was left out.

    Raises:
        InputError: an encoder that torchaudio does not have.
    """
    encoder = model.encoder
    adapted = any(getattr(encoder, name, None) is not None for name in ("lora", "adapter"))
    if encoder.name != "wav2vec2" or encoder.blocks != "transformer" or adapted:
        raise InputError("model.encoder: torchaudio has only wav2vec2 encoders of plain Transformer blocks")
    if encoder.pos_conv_norm != "weight":
        raise InputError("model.encoder.pos_conv_norm=batch: torchaudio has no such encoder")
    if not encoder.feature_norm:
        raise InputError("model.encoder.feature_norm=false: torchaudio has no such encoder")
    named = {name: to_torchaudio(name, model.name == "hubert") for name in state}
    left = [name for name, new in named.items() if new is None]
    tensors = {new: state[name].detach().cpu().clone() for name, new in named.items() if new}
    torch.save(tensors, folder / "model.pt")
    modes = {ours: theirs for theirs, ours in MODES.items()}
    config = {
        "extractor_mode": modes[encoder.extractor],
        "extractor_conv_layer_config": [
            list(layer) for layer in zip(encoder.conv_channels, encoder.conv_kernels, encoder.conv_strides)
        ],
        **{theirs: getattr(encoder, ours) for theirs, ours in FIELDS.items()},
        "encoder_layer_norm_first": encoder.norm == "pre",
        "aux_num_out": len(state["head.weight"]) if "head.weight" in state else None,
        "normalize": encoder.normalize,
    }
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    if model.name == "ctc" and tokenizer is not None:
        blank = "-" if "-" not in tokenizer else "<blank>"
        special = {tokenizer.blank: blank, tokenizer.unk: "<unk>", tokenizer.eos: "</s>"}
        spelled = {SPACE: "|"} if tokenizer.kind == "char" else {}
        names = [special.get(i, spelled.get(token, token)) for i, token in enumerate(tokenizer.vocab)]
        write_text(folder / "labels.txt", "\n".join(names) + "\n")
    return [f"left out, torchaudio has no such weights: {', '.join(left)}"] if left else []
