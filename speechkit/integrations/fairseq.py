"""fairseq's .pt files: wav2vec 2.0, HuBERT and UniSpeech, pre-trained or fine-tuned with CTC.

Both styles of configuration are read: `args`, an argparse.Namespace (2020), and `cfg`, nested sections as
dict or omegaconf containers; fine-tuned models keep that of their pre-training under `w2v_args`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.integrations import vocabulary
from speechkit.integrations.fairseq_config import encoder_values, label_rate, pretraining_values
from speechkit.integrations.foreign import Foreign, take_phones, take_vocabulary
from speechkit.integrations.names import FAIRSEQ_TUNED, fairseq_rules, rename, rename_all
from speechkit.integrations.restricted_pickle import Stub, plain
from speechkit.integrations.shapes import label_values
from speechkit.integrations.torch_file import LazyTensor, TorchFile

OTHERS = {
    "wavlm": ("relative_attention_bias", "WavLM"),
    "data2vec": ("regression_head", "data2vec"),
    "wav2vec": ("feature_aggregator", "wav2vec of 2019"),
    "decoder": ("decoder.", "an attention decoder"),
}
"""Models of other families: their name in a configuration -> a piece of their weights' names, and a name."""


def is_fairseq(value: Any) -> bool:
    """Whether a file's content is a checkpoint of fairseq's trainer (or of those who took its form)."""
    return isinstance(value, dict) and "model" in value and ("args" in value or "cfg" in value)


def read(file: TorchFile, dictionary: Path | None = None, stated: Mapping[str, Any] | None = None) -> Foreign:
    """Reads a fairseq checkpoint.

    Args:
        file: the opened file.
        dictionary: `dict.ltr.txt` of a fine-tuned model; None looks beside the file and inside it.
        stated: encoder values that the user says.

    Raises:
        InputError: another family, a configuration that cannot be read, no vocabulary for the head.
    """
    lazy = file.value["model"]
    if not isinstance(lazy, dict) or not all(isinstance(tensor, LazyTensor) for tensor in lazy.values()):
        raise InputError(f"{file.path}: 'model' is not a table of tensors")
    style = "cfg" if file.value.get("cfg") is not None else "args"
    whole = plain(file.value[style])
    tuned = any(name.startswith("w2v_encoder.") for name in lazy)
    _check_family(lazy, whole, file.path)
    weights, unknown = _weights(file.tensors(lazy))
    try:
        values, notes = encoder_values(whole, tuned, weights, stated or {})
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None
    foreign = Foreign(
        f"fairseq ({style}), {'fine-tuned' if tuned else 'pre-trained'}",
        _kind(weights),
        values,
        weights,
        unknown=unknown,
        notes=notes,
    )
    if not tuned:
        foreign.model = pretraining_values(whole, foreign.kind)
    if foreign.kind == "hubert":
        _cut_labels(foreign, file, label_rate(whole))
    if foreign.kind == "unispeech":
        take_phones(foreign, None)
    if foreign.kind == "ctc":
        _convert_head(foreign, file, dictionary)
    return foreign


def _kind(weights: Mapping[str, Tensor]) -> str:
    """Pre-training heads win: UniSpeech's pre-trained models have both, and no names of phones.

    UniSpeech projects targets up to D where wav2vec 2.0 projects outputs down.
    """
    hidden = weights.get("project_hid.weight")
    dim = weights.get("encoder.feature_projection.projection.bias")
    if hidden is not None and dim is not None and hidden.shape[0] == len(dim) != hidden.shape[1]:
        return "unispeech"
    if "quantizer.codevectors" in weights:
        return "wav2vec2"
    if "label_embs" in weights and "head.weight" not in weights:
        return "hubert"
    if "head.weight" in weights:
        return "ctc"
    return "hubert" if "final_proj.weight" in weights else "wav2vec2"


def _check_family(names: Mapping[str, Any], config: Any, path: Path) -> None:
    sections = [config, *(config.get(key) for key in ("model", "args") if isinstance(config, dict))]
    said = [str(s.get(key)).lower() for s in sections if isinstance(s, dict) for key in ("_name", "arch")]
    for family, (piece, title) in OTHERS.items():
        if any(piece in name for name in names) or (family != "wav2vec" and any(family in s for s in said)):
            raise InputError(
                f"{path}: {title}; only encoders of wav2vec 2.0, HuBERT and UniSpeech are supported"
            )


# ---- weights --------------------------------------------------------------------------------------------


def _weights(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Renamed to ours, in fp32; and the names that are unknown."""
    unwrapped = {}
    for name, tensor in tensors.items():
        unwrapped[rename(name, FAIRSEQ_TUNED) or name] = tensor
    heads = {name: unwrapped.pop(name) for name in list(unwrapped) if name.startswith("head.")}
    weights, unknown = rename_all(unwrapped, fairseq_rules(unwrapped))
    weights = {name: _single(tensor) for name, tensor in {**weights, **heads}.items()}
    return weights, unknown


def _cut_labels(foreign: Foreign, file: TorchFile, rate: float | None) -> None:
    """Takes the special symbols of each dictionary out of HuBERT's class vectors: cluster c is row c + 4."""
    labels, special = foreign.weights.get("label_embs"), len(vocabulary.FAIRSEQ_SPECIAL)
    if labels is None:
        return
    sets = foreign.weights["final_proj.weight"].shape[0] // labels.shape[1]
    sizes = _dictionary_sizes(file.value) or [len(labels) // max(sets, 1)] * max(sets, 1)
    if sum(sizes) != len(labels) or min(sizes) <= special:
        raise InputError(
            f"{file.path}: label_embs_concat has {len(labels)} rows, which are not those of {len(sizes)} "
            f"label sets with {special} special symbols each"
        )
    foreign.weights["label_embs"] = torch.cat([part[special:] for part in labels.split(sizes)])
    foreign.model.update(label_values(foreign.weights, [size - special for size in sizes]))
    rows = f"{len(labels)} rows into {sum(foreign.model['classes'])}"
    foreign.reshaped.append(f"label_embs_concat: {rows}, without the special symbols of fairseq's dictionary")
    if rate is None:
        foreign.notes.append("label_rates=50, which the file does not say")
    foreign.model["label_rates"] = [rate or 50.0] * len(sizes)


def _dictionary_sizes(state: dict[str, Any]) -> list[int] | None:
    """Symbols of each label set's dictionary, special ones included, where the file has them."""
    task = state.get("task_state")
    found = task.get("dictionaries") if isinstance(task, dict) else None
    if not isinstance(found, (list, tuple)) or not found:
        return None
    symbols = [part.state.get("symbols") if isinstance(part, Stub) and part.state else None for part in found]
    return [len(part) for part in symbols] if all(isinstance(part, list) for part in symbols) else None


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _convert_head(foreign: Foreign, file: TorchFile, dictionary: Path | None) -> None:
    beside = file.path.parent / "dict.ltr.txt"
    inside = _symbols(file.value)
    if dictionary is not None or beside.exists():
        words = vocabulary.read_fairseq(dictionary or beside)
    elif inside is not None:
        words = vocabulary.fairseq_vocabulary(f"{file.path} (target_dictionary)", inside)
    else:
        raise InputError(
            f"{file.path}: fine-tuned, but its letters are not known; put dict.ltr.txt beside it, or say "
            "--dictionary"
        )
    take_vocabulary(foreign, words)


def _symbols(state: dict[str, Any]) -> list[str] | None:
    """The symbols of the dictionary that later versions keep in the file, where it can be read."""
    task = state.get("task_state")
    found = task.get("target_dictionary") if isinstance(task, dict) else None
    symbols = (
        found.state.get("symbols") if isinstance(found, Stub) and isinstance(found.state, dict) else None
    )
    return symbols if isinstance(symbols, list) and all(isinstance(s, str) for s in symbols) else None
