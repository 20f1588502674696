"""Checkpoints of other toolkits for a tiny encoder of two blocks, written down by hand.

The names were taken from fairseq's models/wav2vec/wav2vec2.py, wav2vec2_asr.py and models/hubert/hubert.py,
transformers' modeling files and torchaudio's models/wav2vec2; nothing here knows the converter.
"""

from __future__ import annotations

import sys
import types
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

# fairseq | Hugging Face | torchaudio | shape
BLOCKS = """
layer_norm.weight | feature_projection.layer_norm.weight | encoder.feature_projection.layer_norm.weight | 16
layer_norm.bias | feature_projection.layer_norm.bias | encoder.feature_projection.layer_norm.bias | 16
post_extract_proj.weight | feature_projection.projection.weight | encoder.feature_projection.projection.weight | 24 16
post_extract_proj.bias | feature_projection.projection.bias | encoder.feature_projection.projection.bias | 24
encoder.pos_conv.0.bias | encoder.pos_conv_embed.conv.bias | encoder.transformer.pos_conv_embed.conv.bias | 24
encoder.pos_conv.0.weight_g | encoder.pos_conv_embed.conv.parametrizations.weight.original0 | encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original0 | 1 1 8
encoder.pos_conv.0.weight_v | encoder.pos_conv_embed.conv.parametrizations.weight.original1 | encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1 | 24 6 8
encoder.layer_norm.weight | encoder.layer_norm.weight | encoder.transformer.layer_norm.weight | 24
encoder.layer_norm.bias | encoder.layer_norm.bias | encoder.transformer.layer_norm.bias | 24
encoder.layers.0.self_attn.k_proj.weight | encoder.layers.0.attention.k_proj.weight | encoder.transformer.layers.0.attention.k_proj.weight | 24 24
encoder.layers.0.self_attn.k_proj.bias | encoder.layers.0.attention.k_proj.bias | encoder.transformer.layers.0.attention.k_proj.bias | 24
encoder.layers.0.self_attn.v_proj.weight | encoder.layers.0.attention.v_proj.weight | encoder.transformer.layers.0.attention.v_proj.weight | 24 24
encoder.layers.0.self_attn.v_proj.bias | encoder.layers.0.attention.v_proj.bias | encoder.transformer.layers.0.attention.v_proj.bias | 24
encoder.layers.0.self_attn.q_proj.weight | encoder.layers.0.attention.q_proj.weight | encoder.transformer.layers.0.attention.q_proj.weight | 24 24
encoder.layers.0.self_attn.q_proj.bias | encoder.layers.0.attention.q_proj.bias | encoder.transformer.layers.0.attention.q_proj.bias | 24
encoder.layers.0.self_attn.out_proj.weight | encoder.layers.0.attention.out_proj.weight | encoder.transformer.layers.0.attention.out_proj.weight | 24 24
encoder.layers.0.self_attn.out_proj.bias | encoder.layers.0.attention.out_proj.bias | encoder.transformer.layers.0.attention.out_proj.bias | 24
encoder.layers.0.self_attn_layer_norm.weight | encoder.layers.0.layer_norm.weight | encoder.transformer.layers.0.layer_norm.weight | 24
encoder.layers.0.self_attn_layer_norm.bias | encoder.layers.0.layer_norm.bias | encoder.transformer.layers.0.layer_norm.bias | 24
encoder.layers.0.fc1.weight | encoder.layers.0.feed_forward.intermediate_dense.weight | encoder.transformer.layers.0.feed_forward.intermediate_dense.weight | 40 24
encoder.layers.0.fc1.bias | encoder.layers.0.feed_forward.intermediate_dense.bias | encoder.transformer.layers.0.feed_forward.intermediate_dense.bias | 40
encoder.layers.0.fc2.weight | encoder.layers.0.feed_forward.output_dense.weight | encoder.transformer.layers.0.feed_forward.output_dense.weight | 24 40
encoder.layers.0.fc2.bias | encoder.layers.0.feed_forward.output_dense.bias | encoder.transformer.layers.0.feed_forward.output_dense.bias | 24
encoder.layers.0.final_layer_norm.weight | encoder.layers.0.final_layer_norm.weight | encoder.transformer.layers.0.final_layer_norm.weight | 24
encoder.layers.0.final_layer_norm.bias | encoder.layers.0.final_layer_norm.bias | encoder.transformer.layers.0.final_layer_norm.bias | 24
encoder.layers.1.self_attn.k_proj.weight | encoder.layers.1.attention.k_proj.weight | encoder.transformer.layers.1.attention.k_proj.weight | 24 24
encoder.layers.1.self_attn.k_proj.bias | encoder.layers.1.attention.k_proj.bias | encoder.transformer.layers.1.attention.k_proj.bias | 24
encoder.layers.1.self_attn.v_proj.weight | encoder.layers.1.attention.v_proj.weight | encoder.transformer.layers.1.attention.v_proj.weight | 24 24
encoder.layers.1.self_attn.v_proj.bias | encoder.layers.1.attention.v_proj.bias | encoder.transformer.layers.1.attention.v_proj.bias | 24
encoder.layers.1.self_attn.q_proj.weight | encoder.layers.1.attention.q_proj.weight | encoder.transformer.layers.1.attention.q_proj.weight | 24 24
encoder.layers.1.self_attn.q_proj.bias | encoder.layers.1.attention.q_proj.bias | encoder.transformer.layers.1.attention.q_proj.bias | 24
encoder.layers.1.self_attn.out_proj.weight | encoder.layers.1.attention.out_proj.weight | encoder.transformer.layers.1.attention.out_proj.weight | 24 24
encoder.layers.1.self_attn.out_proj.bias | encoder.layers.1.attention.out_proj.bias | encoder.transformer.layers.1.attention.out_proj.bias | 24
encoder.layers.1.self_attn_layer_norm.weight | encoder.layers.1.layer_norm.weight | encoder.transformer.layers.1.layer_norm.weight | 24
encoder.layers.1.self_attn_layer_norm.bias | encoder.layers.1.layer_norm.bias | encoder.transformer.layers.1.layer_norm.bias | 24
encoder.layers.1.fc1.weight | encoder.layers.1.feed_forward.intermediate_dense.weight | encoder.transformer.layers.1.feed_forward.intermediate_dense.weight | 40 24
encoder.layers.1.fc1.bias | encoder.layers.1.feed_forward.intermediate_dense.bias | encoder.transformer.layers.1.feed_forward.intermediate_dense.bias | 40
encoder.layers.1.fc2.weight | encoder.layers.1.feed_forward.output_dense.weight | encoder.transformer.layers.1.feed_forward.output_dense.weight | 24 40
encoder.layers.1.fc2.bias | encoder.layers.1.feed_forward.output_dense.bias | encoder.transformer.layers.1.feed_forward.output_dense.bias | 24
encoder.layers.1.final_layer_norm.weight | encoder.layers.1.final_layer_norm.weight | encoder.transformer.layers.1.final_layer_norm.weight | 24
encoder.layers.1.final_layer_norm.bias | encoder.layers.1.final_layer_norm.bias | encoder.transformer.layers.1.final_layer_norm.bias | 24
"""  # noqa: E501
MASK = "mask_emb | masked_spec_embed | mask_generator.mask_embedding | 24"
GROUP = """
feature_extractor.conv_layers.0.0.weight | feature_extractor.conv_layers.0.conv.weight | = | 16 1 10
feature_extractor.conv_layers.0.2.weight | feature_extractor.conv_layers.0.layer_norm.weight | = | 16
feature_extractor.conv_layers.0.2.bias | feature_extractor.conv_layers.0.layer_norm.bias | = | 16
feature_extractor.conv_layers.1.0.weight | feature_extractor.conv_layers.1.conv.weight | = | 16 16 3
feature_extractor.conv_layers.2.0.weight | feature_extractor.conv_layers.2.conv.weight | = | 16 16 2
"""
LAYER = """
feature_extractor.conv_layers.0.0.weight | feature_extractor.conv_layers.0.conv.weight | = | 16 1 10
feature_extractor.conv_layers.0.0.bias | feature_extractor.conv_layers.0.conv.bias | = | 16
feature_extractor.conv_layers.0.2.1.weight | feature_extractor.conv_layers.0.layer_norm.weight | = | 16
feature_extractor.conv_layers.0.2.1.bias | feature_extractor.conv_layers.0.layer_norm.bias | = | 16
feature_extractor.conv_layers.1.0.weight | feature_extractor.conv_layers.1.conv.weight | = | 16 16 3
feature_extractor.conv_layers.1.0.bias | feature_extractor.conv_layers.1.conv.bias | = | 16
feature_extractor.conv_layers.1.2.1.weight | feature_extractor.conv_layers.1.layer_norm.weight | = | 16
feature_extractor.conv_layers.1.2.1.bias | feature_extractor.conv_layers.1.layer_norm.bias | = | 16
feature_extractor.conv_layers.2.0.weight | feature_extractor.conv_layers.2.conv.weight | = | 16 16 2
feature_extractor.conv_layers.2.0.bias | feature_extractor.conv_layers.2.conv.bias | = | 16
feature_extractor.conv_layers.2.2.1.weight | feature_extractor.conv_layers.2.layer_norm.weight | = | 16
feature_extractor.conv_layers.2.2.1.bias | feature_extractor.conv_layers.2.layer_norm.bias | = | 16
"""
WAV2VEC2_HEADS = """
quantizer.vars | quantizer.codevectors | - | 1 10 6
quantizer.weight_proj.weight | quantizer.weight_proj.weight | - | 10 16
quantizer.weight_proj.bias | quantizer.weight_proj.bias | - | 10
project_q.weight | project_q.weight | - | 20 12
project_q.bias | project_q.bias | - | 20
final_proj.weight | project_hid.weight | - | 20 24
final_proj.bias | project_hid.bias | - | 20
"""
HUBERT_HEADS = """
label_embs_concat | - | logit_generator.label_embeddings | 11 20
final_proj.weight | - | logit_generator.final_proj.weight | 20 24
final_proj.bias | - | logit_generator.final_proj.bias | 20
"""

LETTERS = ["|", "E", "T", "A", "'"]
HEAD_ROWS = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS]
CONVOLUTIONS = "[(16, 10, 5)] + [(16,3,2)] + [(16,2,2)] * 1"

# As argparse left it in 2020: one flat table, numbers of lists as text.
ARGS = {
    "no_progress_bar": False,
    "log_interval": 200,
    "arch": "wav2vec2",
    "task": "audio_pretraining",
    "criterion": "wav2vec",
    "optimizer": "adam",
    "adam_betas": "(0.9,0.98)",
    "data": "/checkpoint/librispeech",
    "sample_rate": 16000,
    "extractor_mode": "default",
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 40,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.2,
    "activation_dropout": 0.0,
    "final_dim": 20,
    "layer_norm_first": False,
    "encoder_layerdrop": 0.05,
    "conv_feature_layers": CONVOLUTIONS,
    "logit_temp": 0.1,
    "quantize_targets": True,
    "feature_grad_mult": 0.1,
    "latent_vars": 5,
    "latent_groups": 2,
    "latent_dim": 12,
    "latent_temp": "(2, 0.5, 0.999995)",
    "mask_length": 10,
    "mask_prob": 0.65,
    "num_negatives": 100,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "dropout_input": 0.1,
    "dropout_features": 0.1,
    "loss_weights": "[0.1, 10]",
    "normalize": False,
}
# Hydra's sections of 2021; a reference that was never resolved stays a text.
CFG = {
    "_name": None,
    "common": {"_name": None, "fp16": True, "seed": 1, "log_format": "json"},
    "checkpoint": {"_name": None, "save_interval_updates": 25000},
    "task": {
        "_name": "audio_pretraining",
        "data": "/private/home/data",
        "normalize": True,
        "sample_rate": 16000,
        "max_sample_size": 320000,
    },
    "criterion": {"_name": "wav2vec", "infonce": True, "loss_weights": [0.1, 0], "log_keys": ["temp"]},
    "model": {
        "_name": "wav2vec2",
        "extractor_mode": "layer_norm",
        "encoder_layers": 2,
        "encoder_embed_dim": 24,
        "encoder_ffn_embed_dim": 40,
        "encoder_attention_heads": 4,
        "activation_fn": "gelu",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "dropout_input": 0.1,
        "dropout_features": 0.0,
        "final_dim": 20,
        "layer_norm_first": True,
        "conv_feature_layers": CONVOLUTIONS,
        "conv_bias": True,
        "logit_temp": 0.1,
        "quantize_targets": True,
        "feature_grad_mult": 1.0,
        "latent_vars": 5,
        "latent_groups": 2,
        "latent_dim": 12,
        "latent_temp": [2.0, 0.1, 0.999995],
        "mask_prob": 0.65,
        "mask_length": 10,
        "num_negatives": 100,
        "conv_pos": 8,
        "conv_pos_groups": 4,
    },
}
# What fine-tuning adds; the configuration of the pre-training stands inside as w2v_args.
TUNED = {
    "arch": "wav2vec_ctc",
    "task": "audio_pretraining",
    "criterion": "ctc",
    "data": "/checkpoint/10h",
    "labels": "ltr",
    "normalize": False,
    "w2v_path": "/checkpoint/wav2vec_small.pt",
    "apply_mask": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.1,
    "dropout_input": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.15,
    "feature_grad_mult": 0.0,
    "mask_prob": 0.5,
}


def rows(variant: str, *more: str) -> list[tuple[str, str, str, list[int]]]:
    """(fairseq, Hugging Face, torchaudio, shape) of the "group" or "layer" variant, and further tables."""
    tables = [GROUP if variant == "group" else LAYER, BLOCKS, *more]
    found = []
    for line in "\n".join(tables).strip().splitlines():
        if line:
            fairseq, hugging, audio, shape = line.split(" | ")
            found.append((fairseq, hugging, hugging if audio == "=" else audio, [*map(int, shape.split())]))
    return found


def tensors(table, seed: int = 0) -> list[Tensor]:
    """A random tensor for each row."""
    random = torch.Generator().manual_seed(seed)
    return [0.3 * torch.randn(shape, generator=random) + 0.01 for *_, shape in table]


def fairseq_state(model: dict[str, Tensor], style: str, config: dict, **more) -> dict:
    """What fairseq's trainer saves around a model: `args` or `cfg`, and state of the training."""
    configured = (
        {"args": Namespace(**config), "cfg": None} if style == "args" else {"args": None, "cfg": config}
    )
    return {
        **configured,
        "model": model,
        "optimizer_history": [{"num_updates": 400000, "optimizer_name": "FP16Optimizer"}],
        "extra_state": {"train_iterator": {"epoch": 7}, "best": None},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 5e-4}]},
        **more,
    }


@contextmanager
def fairseq_modules():
    """Stand-ins for the classes of fairseq whose objects its checkpoints hold, importable in the block."""
    dictionary, constants = (
        types.ModuleType("fairseq.data.dictionary"),
        types.ModuleType("fairseq.dataclass.x"),
    )
    for module, name in ((dictionary, "Dictionary"), (constants, "Choices")):
        class_ = type(name, (), {"__module__": module.__name__, "__qualname__": name})
        setattr(module, name, class_)
    # An enumeration's member is pickled as a call of its class with the value.
    constants.Choices.__init__ = lambda self, value: setattr(self, "value", value)
    constants.Choices.__reduce__ = lambda self: (constants.Choices, (self.value,))
    names = {"fairseq": types.ModuleType("fairseq"), "fairseq.data": types.ModuleType("fairseq.data")}
    names["fairseq.dataclass"] = types.ModuleType("fairseq.dataclass")
    names |= {module.__name__: module for module in (dictionary, constants)}
    assert not names.keys() & sys.modules.keys()
    sys.modules.update(names)
    try:
        yield dictionary.Dictionary, constants.Choices
    finally:
        for name in names:
            del sys.modules[name]


def make_dictionary(class_: type, symbols: list[str]):
    """A dictionary as fairseq's, the four special symbols first."""
    made = class_()
    made.symbols = ["<s>", "<pad>", "</s>", "<unk>", *symbols]
    made.count = [1] * len(made.symbols)
    made.indices = {symbol: index for index, symbol in enumerate(made.symbols)}
    made.bos_index, made.pad_index, made.eos_index, made.unk_index = range(4)
    return made


def save(state: dict, path: Path, legacy: bool = False) -> Path:
    """Writes a .pt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_letters(path: Path, letters: list[str] = LETTERS) -> Path:
    """Writes dict.ltr.txt."""
    path.write_text("".join(f"{letter} {1000 - n}\n" for n, letter in enumerate(letters)), encoding="utf-8")
    return path
