"""ESPnet's names of weights in ours, and what is joined, flattened or added up on the way.

Source: ESPnet 202511, espnet2/asr and espnet/nets/pytorch_backend.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.integrations.names import Rules, rename_all

Weights = dict[str, Tensor]

_BLOCK, _OURS = r"encoder\.encoders\.(\d+)\.", r"encoder.blocks.\1."
_ATTENTION: Rules = (
    (_BLOCK + r"self_attn\.linear_([qkv])\.", _OURS + r"attention.\2."),
    (_BLOCK + r"self_attn\.linear_out\.", _OURS + r"attention.out."),
    (_BLOCK + r"self_attn\.linear_pos\.", _OURS + r"attention.position."),
    (_BLOCK + r"self_attn\.pos_bias_u$", _OURS + r"attention.content_bias"),
    (_BLOCK + r"self_attn\.pos_bias_v$", _OURS + r"attention.position_bias"),
)
_FRONT: Rules = (
    *((rf"encoder\.embed\.conv\.{2 * n}\.", f"encoder.subsampling.convs.{n}.") for n in range(3)),
    (r"encoder\.embed\.out\.(?:0\.)?", "encoder.subsampling.out."),
    (r"encoder\.after_norm\.", "encoder.norm."),
)
CONFORMER: Rules = (
    *_FRONT,
    *_ATTENTION,
    (_BLOCK + r"feed_forward_macaron\.w_1\.", _OURS + r"first.inner."),
    (_BLOCK + r"feed_forward_macaron\.w_2\.", _OURS + r"first.outer."),
    (_BLOCK + r"feed_forward\.w_1\.", _OURS + r"second.inner."),
    (_BLOCK + r"feed_forward\.w_2\.", _OURS + r"second.outer."),
    (_BLOCK + r"conv_module\.pointwise_conv1\.", _OURS + r"convolution.expand."),
    (_BLOCK + r"conv_module\.depthwise_conv\.", _OURS + r"convolution.depthwise."),
    (_BLOCK + r"conv_module\.norm\.", _OURS + r"convolution.norm.norm."),
    (_BLOCK + r"conv_module\.pointwise_conv2\.", _OURS + r"convolution.project."),
    (_BLOCK + r"norm_ff_macaron\.", _OURS + r"norm_first."),
    (_BLOCK + r"norm_mha\.", _OURS + r"norm_attention."),
    (_BLOCK + r"norm_conv\.", _OURS + r"norm_convolution."),
    (_BLOCK + r"norm_ff\.", _OURS + r"norm_second."),
    (_BLOCK + r"norm_final\.", _OURS + r"norm_out."),
)
TRANSFORMER: Rules = (
    *_FRONT,
    *_ATTENTION,
    (_BLOCK + r"feed_forward\.w_1\.", _OURS + r"feed_forward.inner."),
    (_BLOCK + r"feed_forward\.w_2\.", _OURS + r"feed_forward.outer."),
    (_BLOCK + r"norm1\.", _OURS + r"norm_attention."),
    (_BLOCK + r"norm2\.", _OURS + r"norm_feed_forward."),
)
_RNN = r"encoder\.enc\.\d\.birnn(\d+)\."
BLSTM: Rules = (
    *(
        (_RNN + rf"{kind}_l0{end}$", rf"encoder.layers.\1.{way}.{kind}_l0")
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for end, way in (("", "ahead"), ("_reverse", "back"))
    ),
    (r"encoder\.enc\.\d\.bt(\d+)\.", r"encoder.layers.\1.projection."),
    *(
        (rf"encoder\.enc\.0\.{name}\.", f"encoder.subsampling.convs.{n}.")
        for n, name in enumerate(("conv1_1", "conv1_2", "conv2_1", "conv2_2"))
    ),
)
ENCODERS: dict[str, Rules] = {
    "conformer": CONFORMER,
    "transformer": TRANSFORMER,
    "blstm": BLSTM,
    "espnet": ((r"encoder\.", "encoder.network."),),
}
"""Our encoder -> the rules of its weights."""

_DECODER, _OURS_TOO = r"decoder\.decoders\.(\d+)\.", r"decoder.blocks.\1."
DECODERS: dict[str, Rules] = {
    "transformer": (
        (r"decoder\.embed\.0\.", "decoder.embedding."),
        (r"decoder\.after_norm\.", "decoder.norm."),
        (r"decoder\.output_layer\.", "decoder.output."),
        (_DECODER + r"self_attn\.linear_([qkv])\.", _OURS_TOO + r"attention.\2."),
        (_DECODER + r"self_attn\.linear_out\.", _OURS_TOO + r"attention.out."),
        (_DECODER + r"src_attn\.linear_q\.", _OURS_TOO + r"context.query."),
        (_DECODER + r"src_attn\.linear_([kv])\.", _OURS_TOO + r"context.\2."),
        (_DECODER + r"src_attn\.linear_out\.", _OURS_TOO + r"context.out."),
        (_DECODER + r"feed_forward\.w_1\.", _OURS_TOO + r"feed_forward.inner."),
        (_DECODER + r"feed_forward\.w_2\.", _OURS_TOO + r"feed_forward.outer."),
        (_DECODER + r"norm1\.", _OURS_TOO + r"norm_attention."),
        (_DECODER + r"norm2\.", _OURS_TOO + r"norm_context."),
        (_DECODER + r"norm3\.", _OURS_TOO + r"norm_feed_forward."),
    ),
    "las": (
        (r"decoder\.embed\.", "decoder.embedding."),
        (r"decoder\.decoder\.(\d+)\.", r"decoder.cells.\1."),
        (r"decoder\.output\.", "decoder.output."),
        (r"decoder\.att_list\.0\.mlp_enc\.", "decoder.attention.frames."),
        (r"decoder\.att_list\.0\.mlp_dec\.", "decoder.attention.state."),
        (r"decoder\.att_list\.0\.mlp_att\.", "decoder.attention.place."),
        (r"decoder\.att_list\.0\.gvec\.", "decoder.attention.score."),
        (r"decoder\.att_list\.0\.loc_conv\.", "decoder.attention.convolution."),
    ),
    "lstm": (
        (r"decoder\.embed\.", "prediction.embedding."),
        *(
            (rf"decoder\.decoder\.(\d+)\.{kind}_l0$", rf"prediction.lstm.{kind}_l\1")
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ),
        (r"joint_network\.lin_enc\.", "joint.of_frames."),
        (r"joint_network\.lin_dec\.", "joint.of_states."),
        (r"joint_network\.lin_out\.", "joint.out."),
    ),
}
"""Our decoder, or prediction network -> the rules of its weights."""

OTHERS: Rules = (
    (r"ctc\.ctc_lo\.", "head."),
    (r"frontend\.", "frontend."),
    (r"normalize\.", "normalize."),
)

ROWS = ("head", "decoder.embedding", "decoder.output", "prediction.embedding", "joint.out")
"""Layers with a row for each token."""


def convert(weights: Weights, encoder: str, decoder: str | None) -> tuple[Weights, list[str], list[str]]:
    """ESPnet's weights under our names.

    Args:
        weights: of the file.
        encoder: our kind of encoder.
        decoder: our kind of decoder or prediction network, None without one.

    Returns:
        The weights, names that no rule knows, and lines about what was changed.
    """
    rules = (*ENCODERS[encoder], *(DECODERS[decoder] if decoder else ()), *OTHERS)
    renamed, unknown = rename_all(weights, rules)
    lines = []
    joined = _join(renamed, "attention", "qkv", "qkv") + _join(renamed, "context", "kv", "key_value")
    if joined:
        lines.append(f"{joined} weights and biases of queries, keys and values, joined")
    for name in renamed:
        if re.search(r"convolution\.(expand|project)\.weight$", name):
            renamed[name] = renamed[name].squeeze(-1)
        if name == "decoder.attention.convolution.weight":
            renamed[name] = renamed[name].squeeze(2)
    bias = renamed.pop("joint.of_states.bias", None)
    if bias is not None:
        renamed["joint.of_frames.bias"] = renamed["joint.of_frames.bias"] + bias
        lines.append("joint_network: the bias of the decoder's side, added to that of the encoder's")
    return renamed, unknown, lines


def _join(weights: Weights, place: str, letters: str, name: str) -> int:
    """Stacks `<place>.<letter>.{weight,bias}` of all letters as `<place>.<name>`; how many came out."""
    firsts = [key for key in weights if re.search(rf"\.{place}\.{letters[0]}\.(weight|bias)$", key)]
    for key in firsts:
        stem, end = key.rsplit(f".{letters[0]}.", 1)
        parts = [f"{stem}.{letter}.{end}" for letter in letters]
        gone = [part for part in parts if part not in weights]
        if gone:
            raise InputError(f"{gone[0]}: missing in the file, which has {key}")
        weights[f"{stem}.{name}.{end}"] = torch.cat([weights.pop(part) for part in parts])
    return len(firsts)


def reorder(weights: Weights, order: list[int]) -> None:
    """Puts the rows of every layer over tokens into an order."""
    for layer in ROWS:
        for end in ("weight", "bias"):
            if (value := weights.get(f"{layer}.{end}")) is not None:
                weights[f"{layer}.{end}"] = value[order]
