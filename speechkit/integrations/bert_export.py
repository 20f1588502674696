"""Hugging Face folders of BERTs that were trained here, as `BertForMaskedLM.from_pretrained` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from speechkit.encoders.bert import BertAssets
from speechkit.files import write_text
from speechkit.integrations.bert import TIES
from speechkit.text.wordpiece_train import write_tokenizer_config

PREFIX = "bert.model."
"""What stands before transformers' names in the state of a system with a BERT."""


def write(folder: Path, state: Mapping[str, Tensor], assets: BertAssets) -> list[str]:
    """Writes config.json, model.safetensors, vocab.txt, tokenizer_config.json and bert_vocab.json.

    Args:
        folder: an existing, empty one.
        state: the system's `state_dict()`; what is not of its BERT is left out.
        assets: of the BERT.

    Returns:
        Lines about what is left out.
    """
    from safetensors.torch import save_file

    tied = assets.config.get("tie_word_embeddings", True)
    second = {name for name in TIES if tied or not name.endswith("decoder.weight")}
    weights = {
        name.removeprefix(PREFIX): value.detach().cpu().contiguous().clone()
        for name, value in state.items()
        if name.startswith(PREFIX)
    }
    save_file(
        {k: v for k, v in weights.items() if k not in second}, folder / "model.safetensors", {"format": "pt"}
    )
    config = {**assets.config, "model_type": "bert", "architectures": ["BertForMaskedLM"]}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    assets.vocab.save(folder)
    write_tokenizer_config(folder, assets.vocab.rules)
    others = len(state) - len(weights)
    return [f"{others} weights are not of the BERT and are left out"] if others else []
