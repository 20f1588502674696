"""Tiny BERTs with random weights as Hugging Face folders, written without the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["'", "-", "the", "don", "t", "cat", "##s", "dog", "boys", "a", "##b", "##c", "o", "clock", "s"]
VOCAB = [*SPECIAL, *WORDS]

CONFIG = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": len(VOCAB),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def theirs(seed: int = 0, **changes: Any):
    """transformers' own model, every weight random and far from its initial value."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    model = BertForMaskedLM(BertConfig(**{**CONFIG, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def weights_of(model) -> dict[str, Tensor]:
    """The state under its names, each tensor on its own."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def write_bert(
    folder: Path,
    vocab: list[str] | None = None,
    weights: dict[str, Tensor] | None = None,
    tokenizer: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Writes config.json, model.safetensors, vocab.txt and, when given, tokenizer_config.json.

    Args:
        folder: to be made.
        vocab: tokens; those of this file by default.
        weights: by default those of `theirs()` without the names that are tied.
        tokenizer: settings.
        changes: of config.json; `vocab_size` follows the tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab = VOCAB if vocab is None else vocab
    config = {**CONFIG, "vocab_size": len(vocab), **changes}
    if weights is None:
        weights = weights_of(theirs(**{key: config[key] for key in CONFIG if key in config}))
        weights = {name: value for name, value in weights.items() if ".decoder." not in name}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    save_file(weights, folder / "model.safetensors")
    return folder
