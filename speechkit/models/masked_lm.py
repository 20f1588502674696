"""BERT's masked language model (Devlin et al., 2019): a small BERT from scratch, or one trained further.

It learns from text sets, and from the transcripts of any data directory. `speechkit convert --to huggingface`
writes the result as a folder that transformers opens.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.data.batch import Batch
from speechkit.encoders import bert
from speechkit.encoders.bert import Bert, BertAssets
from speechkit.errors import InputError
from speechkit.fusion.conditional_mlm import hide
from speechkit.hashing import mix, uniform
from speechkit.integrations.bert import make_assets
from speechkit.lm.word_groups import WordGroups, read_groups
from speechkit.models.assets import Assets
from speechkit.text.bert_vocab import NEEDED, BertVocab
from speechkit.text.tokenizer import Tokenizer
from speechkit.text.wordpiece_cut import read_folder

SALT = 0x3A5C
"""Keeps the draws of masks apart from others of the same key."""

COUNT = 4
"""Purpose of the draw of how many tokens are predicted."""


@dataclass
class Size:
    """A new BERT."""

    dim: int = 128
    """Width of its states."""
    layers: int = 3
    """Blocks."""
    heads: int = 4
    """Heads of attention."""
    feed_forward: int = 512
    """Width inside the feed-forward parts."""
    positions: int = 128
    """Most word pieces of a sentence, [CLS] and [SEP] included."""
    dropout: float = 0.1
    """Probability of dropping a value, in the attention too."""

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "feed_forward"):
            check_range(name, getattr(self, name), 1)
        check_range("positions", self.positions, 3)
        check_range("dropout", self.dropout, 0, 1, open_high=True)
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}")

    def values(self, vocab: Sequence[str]) -> dict[str, Any]:
        """transformers' config.json for a BERT with these tokens."""
        return {
            "model_type": "bert",
            "vocab_size": len(vocab),
            "hidden_size": self.dim,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.positions,
            "initializer_range": self.dim**-0.5,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
            "pad_token_id": vocab.index("[PAD]"),
        }


@dataclass
class Config:
    """A masked language model."""

    name: str = "masked_lm"
    """The model's kind."""

    bert: bert.Config = field(default_factory=bert.Config)
    """Where its vocabulary is from, and its weights unless it is new."""

    size: Size | None = None
    """A new BERT of this size with all the tokens of `bert.folder`, which `speechkit bert-vocab` may have
    made; null trains the BERT of that folder further."""

    mask: float = 0.15
    """Share of the tokens of a sentence that are predicted, at least one; 80 % of them become [MASK], 10 %
    others, 10 % stay."""

    groups: str | None = None
    """File with a group of words a line, such as homophones, for the dev value `accuracy_groups`: how often
    one that is masked is told from the others of its group."""

    def __post_init__(self) -> None:
        check_range("mask", self.mask, 0.001, 1)
        if self.size is not None and self.bert.init != "random":
            raise ValueError("size: makes a new BERT; say bert.init=random, or leave size out")


class MaskedLm(nn.Module):
    """A BERT and its masked-language-model loss.

    Terms: `mlm`, the cross entropy of a predicted token. Watched: `accuracy` of the predicted tokens and, in
    evaluation, `accuracy_groups`.

    Args:
        config: see `Config`.
        bert: the model.
        vocab_size: V' of the linguistic vocabulary.
        groups: of words, or None.
    """

    requires = inputs = ()
    text_requires = ("bert_tokens",)
    input_dim = None

    def __init__(self, config: Config, bert: Bert, vocab_size: int, groups: WordGroups | None) -> None:
        super().__init__()
        self.config, self.bert, self.vocab_size, self.groups = config, bert, vocab_size, groups
        self.weights = {"mlm": 1.0}

    def _numbers(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the keys, and how many tokens of each sentence are predicted: `(B,)` each."""
        sizes, seeds = batch["bert_tokens"].lengths.cpu().numpy(), mix(batch.keys.numpy(), SALT)
        wanted = np.floor(self.config.mask * sizes + uniform(seeds, COUNT)).astype(np.int64)
        return seeds, np.clip(wanted, np.minimum(sizes, 1), sizes)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Tokens predicted, and in evaluation words of groups."""
        return self._counts(batch, int(self._numbers(batch)[1].sum()))

    def _counts(self, batch: Batch, predicted: int) -> dict[str, int]:
        counts = {"mlm": predicted, "accuracy": predicted}
        if self.config.groups is None:
            return counts
        if self.groups is None:
            raise InputError(f"model.groups: {self.config.groups}: no such file")
        tokens = batch["bert_tokens"]
        asked = 0 if self.training else self.groups.count(tokens.values, tokens.lengths)
        return {**counts, "accuracy_groups": asked}

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; masks depend on the batch's keys alone."""
        tokens, (seeds, numbers) = batch["bert_tokens"], self._numbers(batch)
        noised = hide(tokens.values, tokens.lengths, numbers, seeds, self.vocab_size)
        ids, lengths = self.bert.sequences(noised.tokens, tokens.lengths)
        ids = ids.masked_fill(F.pad(noised.masked, (1, 1)), self.bert.mask_id)
        places = F.pad(noised.chosen, (1, 1)).flatten().nonzero().squeeze(1)
        logits = self.bert.head(self.bert(ids, lengths).flatten(0, 1).index_select(0, places))
        targets = tokens.values[noised.chosen]
        with torch.autocast(logits.device.type, enabled=False):
            loss = F.cross_entropy(logits.float(), targets, reduction="sum")
        values = {"mlm": loss, "accuracy": (logits.detach().argmax(-1) == targets).sum()}
        counts = self._counts(batch, int(numbers.sum()))
        if "accuracy_groups" in counts:
            values["accuracy_groups"] = targets.new_zeros(())
            if counts["accuracy_groups"]:
                values["accuracy_groups"] = self.groups.correct(self.bert, tokens.values, tokens.lengths)
        return {name: (values[name], count) for name, count in counts.items()}

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Nothing: there is no speech to recognise."""
        return {}

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """`(B,)` states of sentences of so many word pieces: as many."""
        return lengths

    def set_update(self, update: int) -> None:
        """Nothing in this system follows a schedule."""


def bert_assets(config: Config, texts: Sequence[str], tokenizer: Tokenizer | None = None) -> BertAssets:
    """Architecture and vocabulary for some training text.

    Args:
        config: a new BERT speaks all tokens of its folder; another one those that `bert.vocab` says.
        texts: training text, a sentence each.
        tokenizer: of CTC units, whose normaliser is taken over, or None.

    Raises:
        InputError: no folder, or none that holds what is needed.
    """
    normaliser = tokenizer.normaliser if tokenizer is not None else None
    if config.size is None:
        return make_assets(config.bert, texts, normaliser)
    if config.bert.folder is None:
        raise InputError(
            "model.bert.folder: name a folder with a vocab.txt; `speechkit bert-vocab` makes one"
        )
    tokens, rules = read_folder(config.bert.folder, config.bert.strip_accents, NEEDED)
    vocab = BertVocab.of(tokens, rules, texts, "full", normaliser)
    return BertAssets(config.size.values(tokens), vocab)


def build(config: Config, assets: Assets) -> MaskedLm:
    """The model, with random weights.

    Raises:
        InputError: no BERT in the assets, or word groups that cannot be used.
    """
    if assets.bert is None:
        raise InputError("model masked_lm: needs a BERT's vocabulary; name its folder in model.bert.folder")
    groups = None
    if config.groups is not None and Path(config.groups).is_file():  # a trained model does without the file
        groups = WordGroups(read_groups(config.groups), assets.bert.vocab)
        if groups.left_out:
            words = ", ".join(groups.left_out[:10]) + (" ..." if len(groups.left_out) > 10 else "")
            print(f"{config.groups}: cannot be asked about, as no single piece: {words}", file=sys.stderr)
    return MaskedLm(config, bert.build(config.bert, assets.bert), len(assets.bert.vocab), groups)
