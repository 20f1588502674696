"""The tokenizer and BERT of tiny systems of a speech encoder and a BERT, and a batch for them."""

from __future__ import annotations

from pathlib import Path

import torch

from speechkit.data.batch import Batch, Padded, pad
from speechkit.encoders.bert import BertAssets
from speechkit.models.assets import Assets
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.tokenizer import build_tokenizer
from speechkit.text.wordpiece_cut import Rules

BINS = 80
TEXTS = ["the cat", "the dog sat on a mat", "a dog"]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "on", "a", "mat", "cow"]
FRAMES = (60, 120, 47)


def make_assets(folder: Path, shared: bool = True, positions: int = 12, dim: int = 16) -> Assets:
    """Pieces on both sides, or characters for CTC; the folder gets a vocab.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS))
    vocab = BertVocab.of(TOKENS, Rules(True, False), TEXTS, "pruned")
    values = {"vocab_size": len(TOKENS), "hidden_size": dim, "num_hidden_layers": 2, "pad_token_id": 0}
    values |= {"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": positions}
    options = {"vocab": folder / "vocab.txt", "pieces": "pruned"} if shared else {}
    tokenizer = build_tokenizer("wordpiece" if shared else "char", TEXTS, **options)
    cmvn = {"mean": [0.5] * BINS, "std": [2.0] * BINS, "frames": 100}
    return Assets(tokenizer, cmvn, BertAssets(values, vocab))


def make_batch(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> Batch:
    """An utterance for each text."""
    torch.manual_seed(5)
    units = model.units
    fields = {
        "features": pad([torch.randn(n, BINS, dtype=dtype) for n in FRAMES]),
        "tokens": pad([torch.tensor(units.tokenizer.encode(text)) for text in TEXTS]),
        "bert_tokens": pad([torch.tensor(units.vocab.encode(text)) for text in TEXTS]),
    }
    return Batch(["u1", "u2", "u3"], torch.tensor([11, 12, 13]), None, fields)


def alone(batch: Batch, row: int) -> Batch:
    """One utterance of a batch, without padding."""
    fields = {
        name: Padded(field.values[row : row + 1, : int(field.lengths[row])], field.lengths[row : row + 1])
        for name, field in batch.fields.items()
    }
    return Batch(batch.ids[row : row + 1], batch.keys[row : row + 1], None, fields)


def shake(model: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
    """Leaves whatever the weights begin with."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model
