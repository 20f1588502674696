"""A checkpoint of another toolkit in SpeechKit's terms, and the account of every weight in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from speechkit.encoders.wav2vec2_presets import PRESETS, preset_values
from speechkit.errors import InputError
from speechkit.integrations.names import POSITIONS, WEIGHT_G, WEIGHT_V
from speechkit.integrations.shapes import label_values, quantizer_sizes
from speechkit.integrations.vocabulary import Vocabulary, convert_head, numbered_phones
from speechkit.text.tokenizer import Tokenizer

HEADS = ("quantizer", "project_q", "project_hid", "final_proj", "label_embs")
"""Modules of pre-training."""

MAY_BE_MISSING = {
    "encoder.masked_spec_embed": "the mask vector, which files of models that never mask leave out",
    **{f"{head}*": "a head of pre-training, which encoders alone do not have" for head in HEADS},
}
"""Globs of the model's names that a file may lack; they keep their random start. A head is there whole or not
at all."""

MAY_BE_UNEXPECTED = {
    "*.num_batches_tracked": "a counter",
    **{f"{head}*": "a head of pre-training that this model does not have" for head in HEADS},
    "ctc_proj.*": "UniSpeech's phone head, whose phones the file does not name",
    "*encoder.version": "a version mark",
    "frontend.*": "the filters of ESPnet's features, which are computed outside the model",
    "decoder.attention.score.bias": "adds the same to the energies of all frames",
}
"""Globs of names that a file may have beyond the model's; they are left out."""


@dataclass
class Foreign:
    """What a reader found.

    Attributes:
        source: what the checkpoint is, in a few words.
        kind: SpeechKit's model: "ctc", "wav2vec2", "hubert", "unispeech", "attention" or "transducer".
        encoder: values of the encoder's configuration; without a `name` they are of `wav2vec2`.
        weights: under SpeechKit's names.
        model: further values of the model's configuration.
        tokenizer: of a CTC head or a decoder.
        cmvn: statistics of the features, as in `speechkit.models.assets.Assets`.
        features: values of the configuration of the features, where the file tells.
        unknown: names in the file that no rule knows.
        reshaped: what was cut, permuted or split, a line each.
        notes: what the file does not say and was assumed, a line each.
    """

    source: str
    kind: str
    encoder: dict[str, Any]
    weights: dict[str, Tensor]
    model: dict[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    cmvn: dict | None = None
    features: dict[str, Any] | None = None
    unknown: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Account:
    """What became of every weight."""

    loaded: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)
    reshaped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The account in plain words."""
        counts = f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        lines = [f"{counts}, {len(self.reshaped)} reshaped"]
        lines += [f"missing, drawn at random: {name}: {why}" for name, why in self.missing.items()]
        lines += [f"unexpected, left out: {name}: {why}" for name, why in self.unexpected.items()]
        return lines + [f"reshaped: {line}" for line in self.reshaped] + [f"note: {n}" for n in self.notes]


def load_foreign(
    own: Mapping[str, Tensor], foreign: Foreign, path: object
) -> tuple[dict[str, Tensor], Account]:
    """The state of a model with a foreign checkpoint's weights.

    Args:
        own: the freshly built model's state.
        foreign: the checkpoint.
        path: its name in messages.

    Returns:
        The state to load, complete, and the account.

    Raises:
        InputError: the positional convolution is not there; a name is missing, unexpected or of another shape
            and not on a list of this file; a weight is not finite.
    """
    split_positions(foreign, own)
    _check_positions(own, foreign.weights, path)
    state, account = take_weights(
        own,
        foreign.weights,
        foreign.unknown,
        f"{path}: {foreign.source}",
        may_miss=MAY_BE_MISSING,
        may_have=MAY_BE_UNEXPECTED,
        heads=HEADS,
    )
    account.reshaped += foreign.reshaped
    account.notes += foreign.notes
    return state, account


def take_weights(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    unknown: Sequence[str],
    what: str,
    *,
    may_miss: Mapping[str, str],
    may_have: Mapping[str, str],
    heads: Sequence[str],
) -> tuple[dict[str, Tensor], Account]:
    """A model's state with a file's weights in it.

    Args:
        own: the freshly built model's state.
        weights: of the file, under the model's names.
        unknown: further names in the file.
        what: the file, for messages.
        may_miss: glob of names that the file may lack -> why.
        may_have: glob of names that the file may have beyond the model's -> why.
        heads: modules that are on both sides or on one, but never in part.

    Raises:
        InputError: a name is missing, unexpected or of another shape, and not on a list; a weight is not
            finite.
    """
    account = Account()
    wrong = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(value.shape)} in the model"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    state = {}
    for name, value in own.items():
        state[name] = weights.get(name, value).to(value.dtype)
        if name in weights:
            account.loaded.append(name)
            if not torch.isfinite(state[name]).all():
                wrong.append(f"{name}: holds numbers that are not finite")
        elif why := _why(name, may_miss, heads, weights):
            account.missing[name] = why
        else:
            wrong.append(f"{name}: missing in the file")
    for name in [*(name for name in weights if name not in own), *unknown]:
        if why := _why(name, may_have, heads, own):
            account.unexpected[name] = why
        else:
            wrong.append(f"{name}: unexpected, the model has no such weight")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(f"{what}: {'; '.join(wrong[:5])}{more}")
    return state, account


def _why(
    name: str, table: Mapping[str, str], heads: Sequence[str], others: Mapping[str, Tensor]
) -> str | None:
    """Why a name may be on one side only; a head must not be on the other side in part."""
    for pattern, why in table.items():
        if fnmatchcase(name, pattern):
            own = [head for head in heads if f"{name}.".startswith(f"{head}.")]
            if own and any(f"{other}.".startswith(f"{own[0]}.") for other in others):
                return None
            return why
    return None


def _check_positions(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: object) -> None:
    needed = [name for name in own if ".pos_conv_embed." in name and not name.endswith("num_batches_tracked")]
    gone = [name for name in needed if name not in weights]
    if gone:
        raise InputError(
            f"{path}: the positional convolution is not in the file ({', '.join(gone)}); without it every "
            "output would be wrong. Save the model again; some versions of transformers lose these tensors"
        )


def split_positions(foreign: Foreign, own: Mapping[str, Tensor]) -> None:
    """Turns a plain positional convolution into the norm and direction of a weight-normalised one.

    `w = g v / ||v||` with the norm over all but the last axis, so `v = w` and `g = ||w||`.
    """
    plain = f"{POSITIONS}.weight"
    if WEIGHT_G in own and plain in foreign.weights and WEIGHT_G not in foreign.weights:
        weight = foreign.weights.pop(plain)
        foreign.weights[WEIGHT_V] = weight
        foreign.weights[WEIGHT_G] = weight.float().norm(dim=(0, 1), keepdim=True)
        foreign.reshaped.append("the positional convolution's plain weight, into its norm and direction")


def model_values(foreign: Foreign) -> dict[str, Any]:
    """The configuration of a SpeechKit model that takes a foreign checkpoint's weights.

    Raises:
        InputError: heads whose sizes cannot be told.
    """
    if "name" in foreign.encoder:
        return {"name": foreign.kind, "encoder": foreign.encoder, **foreign.model}
    encoder = {"name": "wav2vec2", "preset": nearest_preset(foreign.encoder), **foreign.encoder}
    if foreign.kind == "ctc":
        encoder["feature_grad_mult"] = 0.0  # fine-tuning leaves the convolutions as they are
    values = {"name": foreign.kind, "encoder": encoder, **foreign.model}
    sizes = quantizer_sizes(foreign.weights)
    if foreign.kind in ("wav2vec2", "unispeech") and sizes:
        values["projection_dim"] = sizes.pop("projection")
        values["quantizer"] = {**values.get("quantizer", {}), **sizes}
    if foreign.kind == "hubert" and "labels" not in values:
        values.update(label_values(foreign.weights))
    if foreign.kind == "hubert" and "labels" in values:
        values.setdefault("label_rates", [50.0] * len(values["labels"]))
    return values


def take_vocabulary(foreign: Foreign, words: Vocabulary) -> None:
    """Puts a CTC head's rows in the order of a SpeechKit tokenizer.

    Raises:
        InputError: the vocabulary is not the head's.
    """
    weights = foreign.weights
    if "head.bias" not in weights:
        raise InputError(f"{words.source}: the CTC head has no bias (lm_head.bias, proj.bias, aux.bias)")
    head = convert_head(weights["head.weight"], weights["head.bias"], words)
    weights["head.weight"], weights["head.bias"], foreign.tokenizer, lines = head
    foreign.reshaped += lines


def take_phones(foreign: Foreign, words: Vocabulary | None) -> None:
    """Makes UniSpeech's phone head, `ctc_proj`, the output layer; without one the model has none (alpha 0).

    Args:
        foreign: of kind "unispeech".
        words: of the head's rows; None where the file does not name its phones, which are numbered then.

    Raises:
        InputError: the vocabulary is not the head's.
    """
    weights = foreign.weights
    for name in ("weight", "bias"):
        if f"ctc_proj.{name}" in weights:
            weights[f"head.{name}"] = weights.pop(f"ctc_proj.{name}")
    if "head.weight" not in weights:
        foreign.model["alpha"] = 0.0
        return
    if words is None:
        words = numbered_phones(foreign.source, len(weights["head.weight"]))
        foreign.notes.append("the phones of ctc_proj, which the file does not name, are called p0, p1 ...")
    take_vocabulary(foreign, words)


def nearest_preset(encoder: dict[str, Any]) -> str:
    """The published size that a configuration is nearest to, by the number of equal values."""

    def equal(name: str) -> int:
        return sum(encoder.get(key) == value for key, value in preset_values(name).items())

    return max((name for name in PRESETS if "conformer" not in name), key=equal)
