"""ESPnet's ASR checkpoints: a .pth of weights with the config.yaml beside it, read without ESPnet.

Conformer, Transformer and (VGG-)BLSTMP encoders, Transformer and RNN decoders, transducers and CTC heads
become ours; any other encoder stays ESPnet's own module (`espnet_encoder.py`), which needs ESPnet to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from speechkit.errors import InputError
from speechkit.integrations import espnet_config, espnet_features, espnet_names
from speechkit.integrations.foreign import Foreign
from speechkit.integrations.torch_file import LazyTensor, TorchFile
from speechkit.integrations.vocabulary import Vocabulary, normaliser_of, tokenizer_of
from speechkit.layers.cmvn import FLOOR
from speechkit.text.reading import read_utf8
from speechkit.text.subword import SubwordUnits
from speechkit.text.tokenizer import Tokenizer

BEGINNINGS = ("encoder.embed.", "encoder.encoders.", "encoder.enc.", "joint_network.", "ctc.ctc_lo.")
"""Of names that only ESPnet's models have."""


def model_state(value: Any) -> dict[str, LazyTensor] | None:
    """The table of weights in a file's content, of a model or of a training's checkpoint.pth; else None."""
    if isinstance(value, dict) and "reporter" in value and isinstance(value.get("model"), dict):
        value = value["model"]
    if not isinstance(value, dict) or not any(str(name).startswith(BEGINNINGS) for name in value):
        return None
    return value if all(isinstance(tensor, LazyTensor) for tensor in value.values()) else None


def read(file: TorchFile, subwords: Path | None = None, stated: Mapping[str, Any] | None = None) -> Foreign:
    """Reads a checkpoint.

    Args:
        file: the opened file.
        subwords: its sentencepiece model, where it is not at the place that config.yaml says.
        stated: encoder values that the user says; they win.

    Raises:
        InputError: no config.yaml, a part that is not supported, or tokens that are not the model's.
    """
    path = file.path.with_name("config.yaml")
    whole = _read_config(path)
    try:
        return _convert(file, whole, path, subwords, dict(stated or {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise InputError(f"{path}: not a configuration of ESPnet's ASR task ({error})") from None


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; ESPnet writes it beside the .pth, and it says what the model is"
        )
    try:
        whole = yaml.safe_load(read_utf8(path))
    except yaml.YAMLError as error:
        raise InputError(
            f"{path}: not YAML that can be read safely: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(whole, dict) or "encoder" not in whole or "token_list" not in whole:
        raise InputError(f"{path}: not the configuration of an ESPnet ASR model (encoder, token_list)")
    return whole


def _convert(
    file: TorchFile, whole: dict[str, Any], path: Path, subwords: Path | None, stated: dict[str, Any]
) -> Foreign:
    tensors = {name: _single(tensor) for name, tensor in file.tensors(model_state(file.value)).items()}
    encoder, why = espnet_config.encoder_values(whole["encoder"], whole.get("encoder_conf") or {})
    kind, model, decoder = _model(whole, tensors, encoder)
    weights, unknown, reshaped = espnet_names.convert(tensors, encoder["name"], decoder)
    foreign = Foreign(
        f"ESPnet, {whole['encoder']}", kind, {**encoder, **stated}, weights, model, unknown=unknown
    )
    foreign.reshaped = reshaped
    foreign.notes = [f"the encoder is run by ESPnet itself ({why})"] if why else []
    foreign.notes.append("settings of training (SpecAugment, optimiser ...) are not taken over")
    foreign.features, dim, remark = espnet_features.feature_values(whole)
    foreign.notes += [remark] if remark else []
    _take_statistics(foreign, whole)
    if foreign.cmvn is None and dim is not None:
        foreign.model["input_dim"] = dim
    _take_tokens(foreign, whole, path, subwords)
    return foreign


def _model(
    whole: dict[str, Any], tensors: Mapping[str, Tensor], encoder: dict[str, Any]
) -> tuple[str, dict[str, Any], str | None]:
    """Our kind of model, its values, and our kind of decoder."""
    options = whole.get("model_conf") or {}
    if whole.get("model", "espnet") != "espnet" or options.get("transducer_multi_blank_durations"):
        raise InputError(f"model={whole.get('model')} with {options}: is not supported")
    name, conf = whole.get("decoder"), whole.get("decoder_conf") or {}
    share = float(options.get("ctc_weight", 0.5)) if "ctc.ctc_lo.weight" in tensors else 0.0
    if name == "transducer":
        values = espnet_config.transducer_values(conf, whole.get("joint_net_conf") or {})
        return "transducer", {**values, "weights": {"transducer": 1.0, "ctc": share}}, "lstm"
    if name is None or share == 1.0 or not any(key.startswith("decoder.") for key in tensors):
        return "ctc", {}, None
    dim = encoder.get("dim") or encoder.get("projection") or encoder["options"].get("output_size", 256)
    decoder = espnet_config.decoder_values(name, conf, dim)
    smoothing = float(options.get("lsm_weight", 0.0))
    values = {
        "decoder": decoder,
        "weights": {"attention": 1 - share, "ctc": share},
        "label_smoothing": smoothing,
    }
    return "attention", values, decoder["name"]


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _take_statistics(foreign: Foreign, whole: dict[str, Any]) -> None:
    """Turns ESPnet's global normalisation, whose values are among the weights, into ours."""
    mean, std = (foreign.weights.pop(f"normalize.{name}", None) for name in ("mean", "std"))
    if mean is None or std is None:
        return
    conf = whole.get("normalize_conf") or {}
    mean = mean if conf.get("norm_means", True) else torch.zeros_like(mean)
    std = std if conf.get("norm_vars", True) else torch.ones_like(std)
    foreign.cmvn = {"mean": mean.tolist(), "std": std.tolist(), "frames": 0}
    foreign.weights["cmvn.mean"], foreign.weights["cmvn.scale"] = mean, 1 / std.clamp(min=FLOOR)


# ---- tokens ---------------------------------------------------------------------------------------------


def _take_tokens(foreign: Foreign, whole: dict[str, Any], path: Path, subwords: Path | None) -> None:
    """Makes the tokenizer, and puts the rows of all layers over tokens into its order."""
    tokens = whole["token_list"]
    if isinstance(tokens, str):
        place = _found(tokens, path, "token_list")
        tokens = read_utf8(place).removesuffix("\n").split("\n")
    tokens = [str(token) for token in tokens]
    options = whole.get("model_conf") or {}
    blank, eos = options.get("sym_blank", "<blank>"), options.get("sym_eos", "<sos/eos>")
    for name in (blank, "<unk>", eos):
        if tokens.count(name) != 1:
            raise InputError(
                f"token_list: '{name}' must stand there once, and does {tokens.count(name)} times"
            )
    names = [token for token in tokens if token not in (blank, "<unk>", eos)]
    foreign.tokenizer = _tokenizer(whole, names, path, subwords)
    order = [tokens.index(token) for token in (blank, "<unk>", *names, eos)]
    for layer in espnet_names.ROWS:
        rows = foreign.weights.get(f"{layer}.weight")
        if rows is not None and len(rows) != len(tokens):
            raise InputError(f"token_list: {len(tokens)} tokens, but {layer} has {len(rows)} rows")
    if order != sorted(order):
        espnet_names.reorder(foreign.weights, order)
        foreign.reshaped.append("rows of tokens: blank first, then the unknown token, <sos/eos> last")


def _tokenizer(whole: dict[str, Any], names: list[str], path: Path, subwords: Path | None) -> Tokenizer:
    kind = whole.get("token_type", "bpe")
    if kind in ("char", "word", "phn"):
        space = "<space>" if kind == "char" and "<space>" in names else None
        vocabulary = Vocabulary(f"{path} (token_list)", ["<blank>", *names], "<blank>", space=space)
        return tokenizer_of(names, vocabulary, characters=kind == "char")
    if kind != "bpe":
        raise InputError(f"token_type={kind}: is not supported; char, bpe, word and phn are")
    place = subwords or _found(str(whole.get("bpemodel")), path, "bpemodel")
    units = SubwordUnits(place.read_bytes(), str(place))
    if set(units.tokens()) != set(names):
        raise InputError(
            f"{place}: its pieces are not those of token_list; give the model's own, --dictionary"
        )
    return Tokenizer("bpe", units, names, normaliser_of(names))


def _found(named: str, path: Path, key: str) -> Path:
    """A file that config.yaml names: there, below a folder above it, or beside it."""
    places = [
        Path(named),
        *(parent / named for parent in path.absolute().parents),
        path.parent / Path(named).name,
    ]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"{key}={named}: no such file here or beside config.yaml; put it there, or say --dictionary"
    )
