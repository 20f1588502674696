"""BERT (Devlin et al., 2019) as the linguistic encoder: transformers' modules, taken apart at their joints.

What other methods put in between: after the embeddings (Embedding Attention, CIF, replaced embeddings), after
each block (adapters), before the head (aggregation). Weights come from `integrations/bert.py`; building
downloads nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from speechkit.config import check_range
from speechkit.errors import InputError
from speechkit.files import hash_json, read_json, write_json
from speechkit.layers.masks import padding_mask
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.wordpiece_cut import Keep

Between = Callable[[int, Tensor], Tensor]
"""Number of a block from 0 and its output `(B, M, D)` -> what the next one reads."""


@dataclass
class Config:
    """A BERT and what of it is trained."""

    folder: str | None = None
    """Hugging Face folder, or a hub name that is in transformers' cache; null in systems that have one."""

    vocab: Keep = "pruned"
    """`pruned`: only the pieces of the training text can be read and written; `full`: all."""

    strip_accents: bool | None = None
    """Lose accents; null does as the checkpoint says, and keeps them where it says nothing."""

    init: Literal["pretrained", "random"] = "pretrained"
    """Weights at the start; `random` is the control that knows no language."""

    allow_new_head: bool = False
    """Take a checkpoint without a masked-language-model head too; the head begins with random weights."""

    dropout: float | None = None
    """Probability of dropping a value, in the attention too; null for the checkpoint's."""

    train_embeddings: bool = True
    """Train the embeddings; the output layer of a BERT shares its words'."""

    train_layers: bool = True
    """Train the blocks."""

    train_head: bool = True
    """Train the transform and the biases of the masked-language-model head."""

    def __post_init__(self) -> None:
        if self.dropout is not None:
            check_range("dropout", self.dropout, 0, 1, open_high=True)


@dataclass
class BertAssets:
    """What is known of a BERT beside its weights.

    Attributes:
        config: transformers' config.json.
        vocab: the linguistic vocabulary.
    """

    config: dict[str, Any]
    vocab: BertVocab

    @property
    def hash(self) -> str:
        """Equal for the same architecture, ids and texts."""
        return hash_json([self.config, self.vocab.hash])

    def save(self, folder: Path) -> None:
        """Writes config.json, vocab.txt and bert_vocab.json."""
        folder.mkdir(exist_ok=True)
        write_json(folder / "config.json", self.config)
        self.vocab.save(folder)

    @classmethod
    def load(cls, folder: Path) -> BertAssets:
        """Reads what `save` wrote; InputError names what is broken."""
        return cls(read_json(folder / "config.json"), BertVocab.load(folder))


class Bert(nn.Module):
    """transformers' `BertForMaskedLM`, with a head restricted to the linguistic vocabulary.

    Ids here are BERT's own, with [CLS] and [SEP], unless said otherwise.

    Args:
        model: a `transformers.BertForMaskedLM`.
        vocab: the linguistic vocabulary.

    Attributes:
        model: as given; its state has transformers' names.
        dim: D.
        positions: most tokens of a sequence, [CLS] and [SEP] included.
        layer_modules: the blocks, in order; see `layers`.
        pad_id, cls_id, sep_id, mask_id: in BERT's own ids.
    """

    def __init__(self, model: nn.Module, vocab: BertVocab) -> None:
        super().__init__()
        self.model = model
        self.dim: int = model.config.hidden_size
        self.positions: int = model.config.max_position_embeddings
        self.pad_id, self.cls_id, self.sep_id = vocab.pad_id, vocab.cls_id, vocab.sep_id
        self.mask_id = vocab.mask_id
        self.register_buffer("bert_ids", vocab.lookup(), persistent=False)

    @property
    def layer_modules(self) -> nn.ModuleList:
        """The blocks; call one as `run_layer(block, x, mask)`."""
        return self.model.bert.encoder.layer

    def sequences(self, ids: Tensor, lengths: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Linguistic ids as BERT reads them: looked up, between [CLS] and [SEP], [PAD] after.

        Args:
            ids: `(B, M)` linguistic ids; padding of any content.
            lengths: `(B,)`; 0 gives [CLS] [SEP]. What goes beyond BERT's positions is cut off.
            masked: `(B, M)` bool, where [MASK] stands instead.

        Returns:
            `(B, M' + 2)` BERT ids with M' = min(M, positions - 2), and `(B,)` their lengths.
        """
        room = self.positions - 2
        masked = None if masked is None else masked[:, :room]
        return bert_sequences(ids[:, :room], lengths.clamp(max=room), self.bert_ids, self, masked)

    def word_embeddings(self, ids: Tensor) -> Tensor:
        """`(B, M)` BERT ids to `(B, M, D)` rows of the word table alone."""
        return self.model.bert.embeddings.word_embeddings(ids)

    def embed(self, ids: Tensor | None = None, words: Tensor | None = None) -> Tensor:
        """The full output of the embeddings: word + position + type 0, layer norm, dropout.

        Args:
            ids: `(B, M)` BERT ids.
            words: `(B, M, D)` in place of rows of the word table; one of the two.

        Raises:
            InputError: more tokens than BERT has positions.
        """
        width = (ids if words is None else words).shape[1]
        if width > self.positions:
            raise InputError(f"{width} tokens, and BERT has {self.positions} positions")
        return self.model.bert.embeddings(input_ids=ids, inputs_embeds=words)

    def attention_mask(self, x: Tensor, lengths: Tensor) -> Tensor:
        """`(B, 1, 1, M)`, what `run_layer` adds to the scores: hides the padding of x."""
        hidden = padding_mask(lengths, x.shape[1])[:, None, None]
        return torch.zeros_like(hidden, dtype=x.dtype).masked_fill(hidden, torch.finfo(x.dtype).min)

    def run_layer(self, layer: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        """One block of `layer_modules` on `(B, M, D)`."""
        output = layer(x, mask)
        return output[0] if isinstance(output, tuple) else output  # a tuple before transformers 5

    def layers(self, x: Tensor, lengths: Tensor, between: Between | None = None) -> Tensor:
        """All blocks.

        Args:
            x: `(B, M, D)` from `embed`; padding of any content.
            lengths: `(B,)`, at least 1.
            between: what is done after each block.

        Returns:
            `(B, M, D)`, zeros at padding.
        """
        padding = padding_mask(lengths, x.shape[1])[..., None]
        x, mask = x.masked_fill(padding, 0), self.attention_mask(x, lengths)
        for number, layer in enumerate(self.layer_modules):
            x = self.run_layer(layer, x, mask)
            if between is not None:
                x = between(number, x)
        return x.masked_fill(padding, 0)

    def head(self, states: Tensor, sep: bool = False) -> Tensor:
        """Logits `(..., V')` over linguistic ids of states `(..., D)`: BERT's own transform and decoder.

        Args:
            states: of the last block.
            sep: give one more, that of [SEP], at the end.
        """
        predictions = self.model.cls.predictions
        ids = nn.functional.pad(self.bert_ids, (0, 1), value=self.sep_id) if sep else self.bert_ids
        rows = predictions.decoder.weight.index_select(0, ids)
        bias = predictions.decoder.bias.index_select(0, ids)
        return nn.functional.linear(predictions.transform(states), rows, bias)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """`(B, M)` BERT ids to hidden states `(B, M, D)`, zeros at padding."""
        return self.layers(self.embed(ids), lengths)


def bert_sequences(
    ids: Tensor, lengths: Tensor, lookup: Tensor, special: Bert | BertVocab, masked: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `Bert.sequences` does, for sequences of any length.

    Args:
        ids: `(B, M)`, as there.
        lengths: `(B,)`, at most M.
        lookup: `(V',)`, see `BertVocab.lookup`.
        special: knows the ids of the special tokens.
        masked: `(B, M)`, as there.
    """
    padding = padding_mask(lengths, ids.shape[1])
    known = lookup.index_select(0, ids.masked_fill(padding, 0).flatten()).view_as(ids)
    known = known if masked is None else known.masked_fill(masked, special.mask_id)
    ends = ids.new_full((len(ids), 1), special.cls_id), ids.new_full((len(ids), 1), special.pad_id)
    whole = torch.cat([ends[0], known.masked_fill(padding, special.pad_id), ends[1]], dim=1)
    return whole.scatter(1, (lengths + 1)[:, None], special.sep_id), lengths + 2


def build(config: Config, assets: BertAssets) -> Bert:
    """A BERT with random weights, of the architecture in `assets`; what is not trained has no gradient.

    Raises:
        InputError: an architecture that is not BERT's, or values that transformers refuses.
    """
    from transformers import BertConfig, BertForMaskedLM

    values = {key: value for key, value in assets.config.items() if key not in ("dtype", "torch_dtype")}
    if values.get("model_type", "bert") != "bert":
        raise InputError(f"model_type '{values['model_type']}': only BERT can be the linguistic encoder")
    if config.dropout is not None:
        values.update(hidden_dropout_prob=config.dropout, attention_probs_dropout_prob=config.dropout)
    try:
        model = BertForMaskedLM(BertConfig(**values))
    except Exception as error:  # transformers says what is wrong with many kinds of errors
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise InputError(f"BERT's config.json: {why}") from None
    parts = {
        "train_embeddings": model.bert.embeddings,
        "train_layers": model.bert.encoder,
        "train_head": model.cls,
    }
    words = model.bert.embeddings.word_embeddings.weight
    for option, part in parts.items():
        if not getattr(config, option):
            part.requires_grad_(False)
    words.requires_grad_(config.train_embeddings)  # also the decoder's, where the two are one
    return Bert(model, assets.vocab)
