"""Hugging Face folders of what SpeechKit trained, as transformers' `from_pretrained` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.integrations.huggingface import FIELDS, SIDE_FILE
from speechkit.integrations.names import to_huggingface
from speechkit.integrations.shapes import quantizer_sizes
from speechkit.text.char import SPACE
from speechkit.text.tokenizer import Tokenizer

CLASSES = {
    ("wav2vec2", "ctc"): "Wav2Vec2ForCTC",
    ("wav2vec2", "wav2vec2"): "Wav2Vec2ForPreTraining",
    ("wav2vec2", "hubert"): "Wav2Vec2Model",
    ("hubert", "ctc"): "HubertForCTC",
    ("hubert", "wav2vec2"): "HubertModel",
    ("hubert", "hubert"): "HubertModel",
    ("unispeech", "unispeech"): "UniSpeechForPreTraining",
}
"""transformers' model type and SpeechKit's kind of model -> class."""


def write(
    folder: Path,
    model: Any,
    state: Mapping[str, Tensor],
    tokenizer: Tokenizer | None = None,
    legacy_weight_norm: bool = False,
) -> list[str]:
    """Writes config.json, preprocessor_config.json, model.safetensors and, for CTC, the tokenizer's files.

    Args:
        folder: an existing, empty one.
        model: configuration of the model (its `name` and `encoder`).
        state: the model's `state_dict()`.
        tokenizer: of a CTC head.
        legacy_weight_norm: name the positional convolution `weight_g` and `weight_v`, as before torch 2.1.

    Returns:
        Lines about what differs from the original.

    Raises:
        InputError: a model that transformers does not have.
    """
    from safetensors.torch import save_file

    encoder = model.encoder
    config = _encoder_values(encoder)
    kind = _kind(model)
    class_ = CLASSES.get((kind, model.name))
    if class_ is None:
        known = "ctc, wav2vec2, hubert and unispeech"
        raise InputError(f"model {model.name}: transformers has no such model, only {known}")
    config.update(model_type=kind, architectures=[class_])
    lines = []
    prefix = "" if class_.endswith("Model") else f"{kind}."
    aside = {name: value for name, value in state.items() if not prefix and not name.startswith("encoder.")}
    head = "ctc_proj" if kind == "unispeech" else "lm_head"
    weights = {
        to_huggingface(name, prefix, legacy_weight_norm, head): value.detach().cpu().contiguous().clone()
        for name, value in state.items()
        if name not in aside
    }
    if model.name == "ctc":
        config.update(final_dropout=model.dropout, **_write_tokenizer(folder, tokenizer, lines))
    elif prefix:
        config.update(_quantizer_values(weights))
    if kind == "unispeech":
        config.update(_unispeech_values(folder, model, tokenizer, lines))
    if aside:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in aside.items()}, folder / SIDE_FILE
        )
        lines.append(f"{len(aside)} weights of heads that transformers does not have: {SIDE_FILE}")
    if encoder.normalize == "fairseq":
        lines.append("transformers adds 1e-7, not 1e-5, to the variance of waveforms: quiet speech differs")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_text(folder / "config.json", _json(config))
    write_text(folder / "preprocessor_config.json", _json(_preprocessor_values(encoder)))
    return lines


def _kind(model: Any) -> str:
    """transformers' model type."""
    if model.name != "unispeech":
        return "hubert" if _is_hubert(model) else "wav2vec2"
    encoder = model.encoder
    parts = {
        "encoder.pos_conv_norm=batch": encoder.pos_conv_norm == "batch",
        "encoder.feature_norm=false": not encoder.feature_norm,
        "q_layernorm": model.q_layernorm,
    }
    for name, used in parts.items():
        if used:
            raise InputError(f"model.{name}: transformers' UniSpeech has no such part")
    return "unispeech"


def _unispeech_values(
    folder: Path, model: Any, tokenizer: Tokenizer | None, lines: list[str]
) -> dict[str, Any]:
    """The fields of config.json about replacement and the phone head, whose tokenizer is written."""
    values = {"replace_prob": model.replace, "final_dropout": model.dropout}
    if not model.alpha:
        lines.append("no phone head (model.alpha=0): transformers draws ctc_proj at random")
        return values
    values |= _write_tokenizer(folder, tokenizer, lines)
    return {**values, "num_ctc_classes": values["vocab_size"]}


def _is_hubert(model: Any) -> bool:
    encoder = model.encoder
    if encoder.pos_conv_norm == "batch" or not encoder.feature_norm:  # only its class has these options
        return True
    return model.name == "hubert" or encoder.preset.startswith("hubert")


def _encoder_values(encoder: Any) -> dict[str, Any]:
    """The fields of config.json that describe an encoder; InputError when transformers has none like it."""
    blocks = getattr(encoder, "blocks", None)
    if encoder.name != "wav2vec2" or blocks != "transformer":
        what = f"{encoder.name} encoder" + (f" of {blocks} blocks" if blocks else "")
        raise InputError(f"model.encoder: transformers has no {what}; only wav2vec2 encoders can be exported")
    for name in ("lora", "adapter"):
        if getattr(encoder, name, None) is not None:
            raise InputError(f"model.encoder.{name}: transformers' encoders have no such part")
    values = {theirs: getattr(encoder, ours) for theirs, ours in FIELDS.items()}
    if encoder.feature_norm:  # the default, which only HuBERT's configuration knows
        del values["feat_proj_layer_norm"]
    values.update(
        do_stable_layer_norm=encoder.norm == "pre", hidden_act="gelu", feat_extract_activation="gelu"
    )
    if encoder.pos_conv_norm == "batch":
        values["conv_pos_batch_norm"] = True
    return values


def _preprocessor_values(encoder: Any) -> dict[str, Any]:
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": encoder.normalize != "none",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": encoder.extractor == "layer",
        "sampling_rate": 16000,
    }


def _quantizer_values(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    sizes = quantizer_sizes(weights)
    if not sizes:
        raise InputError("model.targets=linear: transformers has no pre-training without a quantizer")
    return {
        "num_codevector_groups": sizes["groups"],
        "num_codevectors_per_group": sizes["entries"],
        "codevector_dim": sizes["dim"],
        "proj_codevector_dim": sizes["projection"],
    }


def _write_tokenizer(folder: Path, tokenizer: Tokenizer | None, lines: list[str]) -> dict[str, Any]:
    """vocab.json and tokenizer_config.json; returns the fields of config.json about the vocabulary."""
    if tokenizer is None:
        raise InputError("the tokenizer of the output layer is missing")
    delimiter = "|" if "|" not in tokenizer else SPACE
    names = {tokenizer.blank: "<pad>", tokenizer.unk: "<unk>", tokenizer.eos: "</s>"}
    clash = [name for name in names.values() if name in tokenizer]
    if clash:
        raise InputError(
            f"the tokenizer has a token '{clash[0]}', which transformers takes for a special one"
        )
    spelled = {SPACE: delimiter} if tokenizer.kind == "char" else {}
    ids = {names.get(i, spelled.get(token, token)): i for i, token in enumerate(tokenizer.vocab)}
    if tokenizer.kind != "char":
        lines.append(f"transformers' CTC tokenizer joins {tokenizer.kind} tokens without spaces")
    write_text(folder / "vocab.json", _json(ids))
    settings = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "bos_token": "</s>",
        "eos_token": "</s>",
        "word_delimiter_token": delimiter,
        "do_lower_case": False,
    }
    write_text(folder / "tokenizer_config.json", _json(settings))
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.blank,
        "bos_token_id": tokenizer.eos,
        "eos_token_id": tokenizer.eos,
        "ctc_zero_infinity": True,
    }


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
