"""Names of the same weights in fairseq, Hugging Face transformers and torchaudio.

SpeechKit's encoder has the names of Hugging Face's `Wav2Vec2Model`, under `encoder.`; its CTC head is
`head.`. Sources: fairseq's models/wav2vec/wav2vec2.py and models/hubert/hubert.py, transformers'
modeling_wav2vec2.py, modeling_hubert.py and modeling_unispeech.py, torchaudio's models/wav2vec2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from speechkit.errors import InputError

T = TypeVar("T")
Rules = tuple[tuple[str, str], ...]

POSITIONS = "encoder.encoder.pos_conv_embed.conv"
WEIGHT_G, WEIGHT_V = (
    f"{POSITIONS}.parametrizations.weight.original0",
    f"{POSITIONS}.parametrizations.weight.original1",
)

_LAYER = r"encoder\.layers\.(\d+)\."
_OURS = r"encoder.encoder.layers.\1."
FAIRSEQ: Rules = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"encoder.feature_extractor.conv_layers.\1.conv."),
    (
        r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.",
        r"encoder.feature_extractor.conv_layers.\1.layer_norm.",
    ),
    (r"feature_extractor\.conv_layers\.0\.2\.", r"encoder.feature_extractor.conv_layers.0.layer_norm."),
    (r"layer_norm\.", r"encoder.feature_projection.layer_norm."),
    (r"post_extract_proj\.", r"encoder.feature_projection.projection."),
    (r"mask_emb$", r"encoder.masked_spec_embed"),
    (r"encoder\.layer_norm\.", r"encoder.encoder.layer_norm."),
    (_LAYER + r"self_attn\.([qkv]|out)_proj\.", _OURS + r"attention.\2_proj."),
    (_LAYER + r"self_attn_layer_norm\.", _OURS + r"layer_norm."),
    (_LAYER + r"fc1\.", _OURS + r"feed_forward.intermediate_dense."),
    (_LAYER + r"fc2\.", _OURS + r"feed_forward.output_dense."),
    (_LAYER + r"final_layer_norm\.", _OURS + r"final_layer_norm."),
    (r"quantizer\.vars$", r"quantizer.codevectors"),
    (r"quantizer\.weight_proj\.", r"quantizer.weight_proj."),
    (r"project_q\.", r"project_q."),
    (r"label_embs_concat$", r"label_embs"),
)
"""fairseq's pre-trained models; a name that begins with the pattern has that beginning replaced."""

FAIRSEQ_POSITIONS: dict[str, Rules] = {
    "weight": ((r"encoder\.pos_conv\.0\.", POSITIONS + "."),),
    "batch": (
        (r"encoder\.pos_conv\.0\.", "encoder.encoder.pos_conv_embed.batch_norm."),
        (r"encoder\.pos_conv\.1\.", POSITIONS + "."),
    ),
}
"""The positional convolution with a norm of its weights, or with a batch norm before it."""

FAIRSEQ_PROJECTION: dict[str, Rules] = {
    "wav2vec2": ((r"final_proj\.", "project_hid."),),
    "hubert": ((r"final_proj\.", "final_proj."),),
}
"""What the projection of the context network's output is called in each kind of pre-training."""

FAIRSEQ_TUNED: Rules = ((r"w2v_encoder\.proj\.", "head."), (r"w2v_encoder\.w2v_model\.", ""))
"""Fine-tuned models wrap the encoder; what remains after the prefix is read as above."""

HUGGINGFACE: Rules = (
    (r"(?:wav2vec2|hubert|unispeech)\.", "encoder."),
    (r"lm_head\.", "head."),
    (r"(quantizer|project_q|project_hid|ctc_proj)\.", r"\1."),
    (r"(feature_extractor|feature_projection|encoder)\.", r"encoder.\1."),
    (r"masked_spec_embed$", "encoder.masked_spec_embed"),
)
"""transformers' models with a head, and bare encoders."""

TORCHAUDIO: Rules = (
    (r"mask_generator\.mask_embedding$", "encoder.masked_spec_embed"),
    (r"logit_generator\.label_embeddings$", "label_embs"),
    (r"logit_generator\.final_proj\.", "final_proj."),
    (r"aux\.", "head."),
    (r"encoder\.transformer\.", "encoder.encoder."),
    (r"encoder\.feature_projection\.", "encoder.feature_projection."),
    (r"feature_extractor\.", "encoder.feature_extractor."),
)
"""torchaudio's `Wav2Vec2Model` and `HuBERTPretrainModel`, the latter without the prefix `wav2vec2.`."""

_OLD_NORM = {
    f"{POSITIONS}.weight_g": WEIGHT_G,
    f"{POSITIONS}.weight_v": WEIGHT_V,
}


def rename(name: str, rules: Rules) -> str | None:
    """The name after the first rule that fits its beginning; None when none does."""
    for pattern, replacement in rules:
        if found := re.match(pattern, name):
            return found.expand(replacement) + name[found.end() :]
    return None


def rename_all(weights: Mapping[str, T], rules: Rules) -> tuple[dict[str, T], list[str]]:
    """SpeechKit's names, the two of the weight norm in their present form; and the names no rule knows.

    Raises:
        InputError: two names become the same.
    """
    renamed: dict[str, T] = {}
    unknown = []
    for name, value in weights.items():
        new = rename(name, rules)
        if new is None:
            unknown.append(name)
            continue
        new = _OLD_NORM.get(new, new)
        if new in renamed:
            raise InputError(f"'{name}' and another entry are both SpeechKit's '{new}'")
        renamed[new] = value
    return renamed, unknown


def fairseq_rules(names: Iterable[str]) -> Rules:
    """The rules for a fairseq model with these names, without the prefix of a fine-tuned one."""
    names = set(names)
    positions = "batch" if "encoder.pos_conv.0.running_mean" in names else "weight"
    family = "wav2vec2" if any(name.startswith("quantizer.") for name in names) else "hubert"
    return (*FAIRSEQ, *FAIRSEQ_POSITIONS[positions], *FAIRSEQ_PROJECTION[family])


def to_huggingface(name: str, prefix: str, legacy_weight_norm: bool = False, head: str = "lm_head") -> str:
    """transformers' name of one of ours.

    Args:
        name: in SpeechKit.
        prefix: of the encoder: "wav2vec2.", "hubert." or "unispeech.", "" for a bare one.
        legacy_weight_norm: name the positional convolution `weight_g` and `weight_v`.
        head: what the output layer is called there.
    """
    if name.startswith("head."):
        return f"{head}.{name.removeprefix('head.')}"
    if not name.startswith("encoder."):
        return name
    if legacy_weight_norm:
        name = {new: old for old, new in _OLD_NORM.items()}.get(name, name)
    return prefix + name.removeprefix("encoder.")


_TO_TORCHAUDIO: Rules = (
    (r"head\.", "aux."),
    (r"encoder\.encoder\.", "encoder.transformer."),
    (r"encoder\.feature_projection\.", "encoder.feature_projection."),
    (r"encoder\.feature_extractor\.", "feature_extractor."),
)
_TO_TORCHAUDIO_HEADS: Rules = (
    (r"encoder\.masked_spec_embed$", "mask_generator.mask_embedding"),
    (r"label_embs$", "logit_generator.label_embeddings"),
    (r"final_proj\.", "logit_generator.final_proj."),
)


def to_torchaudio(name: str, pretraining: bool) -> str | None:
    """torchaudio's name of one of ours, or None for what its models do not have.

    Args:
        name: in SpeechKit.
        pretraining: for a `HuBERTPretrainModel`, which holds the encoder as `wav2vec2.`.
    """
    if pretraining and (found := rename(name, _TO_TORCHAUDIO_HEADS)):
        return found
    found = rename(name, _TO_TORCHAUDIO)
    return f"wav2vec2.{found}" if pretraining and found else found
