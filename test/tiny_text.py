"""The tiny CTC of `tiny_training` with a second term: the next token of sentences that nobody speaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tiny_training
import torch
from factories import WORDS, write_table
from torch import nn

from speechkit.models import MODELS

MODELS["tiny_text"] = "tiny_text"


@dataclass
class Config(tiny_training.Config):
    """With the weight of the second term."""

    name: str = "tiny_text"
    lm: float = 0.5


class TinyText(tiny_training.Tiny):
    """Learns from speech and from text sets."""

    text_requires = ("tokens",)

    def __init__(self, config, vocab, cmvn):
        super().__init__(config, vocab, cmvn)
        self.weights["lm"] = config.lm
        self.embedding = nn.Embedding(vocab, config.width)

    def counts(self, batch):
        return super().counts(batch) if "features" in batch else {"lm": int(batch["tokens"].lengths.sum())}

    def loss(self, batch, update):
        if "features" in batch:
            return super().loss(batch, update)
        tokens = batch["tokens"]
        logits = self.head(self.dropout(self.embedding(tokens.values[:, :-1])))
        inside = torch.arange(1, tokens.values.size(1)) < tokens.lengths[:, None]
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens.values[:, 1:].flatten(), reduction="none"
        )
        return {"lm": (losses[inside.flatten()].sum(), self.counts(batch)["lm"])}


def build(config, assets):
    return TinyText(config, len(assets.tokenizer.vocab), assets.cmvn)


def make_text_set(path: Path, sentences: int = 30, prefix: str = "t", words=WORDS) -> Path:
    """A directory with `text` alone: 1 to 7 words a sentence, all different."""
    rows = {
        f"{prefix}{i:04d}": " ".join(words[(i * (k + 1) + k) % len(words)] for k in range(1 + i % 7))
        for i in range(sentences)
    }
    write_table(path / "text", rows)
    return path


class TextWorld(tiny_training.World):
    """Speech, and sentences beside it in training and validation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.texts, self.dev_texts = make_text_set(folder / "texts"), make_text_set(folder / "more", 6, "m")

    def arguments(self, exp="exp", **changes):
        values = {"model__name": "tiny_text", "plan__text__tokens": 90, **changes}
        train, speech, dev, dev_speech, *rest = super().arguments(exp, **values)
        return [train, speech, str(self.texts), dev, dev_speech, str(self.dev_texts), *rest]
