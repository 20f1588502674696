"""What systems of a speech encoder and a BERT are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.encoders import bert
from speechkit.encoders.bert import Bert, BertAssets
from speechkit.errors import InputError
from speechkit.integrations.bert import make_assets, open_bert
from speechkit.models.assets import Assets
from speechkit.models.ctc import CtcModel, check_options, log_softmax
from speechkit.models.inputs import build_encoder
from speechkit.search.two_vocabularies import TwoVocabularies
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.tokenizer import Tokenizer

Heads = dict[str, tuple[Tensor, Tensor]]
"""What a system says of a batch: name -> values `(B, ...)` and lengths `(B,)`."""


class Parts(NamedTuple):
    """A speech encoder, a BERT, and what lies between.

    Attributes:
        encoder: of speech.
        bert: the linguistic encoder, with random weights.
        units: which tokens of CTC are which of BERT.
        input_dim: F of features, None for samples.
        cmvn: normalises features, or `nn.Identity()`.
    """

    encoder: nn.Module
    bert: Bert
    units: TwoVocabularies
    input_dim: int | None
    cmvn: nn.Module

    @property
    def acoustic(self) -> tuple[nn.Module, int, int | None, nn.Module]:
        """What `CtcModel` takes after its configuration."""
        return self.encoder, self.units.ctc_size, self.input_dim, self.cmvn


def bert_assets(config: Any, texts: Sequence[str], tokenizer: Tokenizer | None) -> BertAssets:
    """Architecture and linguistic vocabulary: the tokenizer's pieces where they are shared.

    Args:
        config: of a model with `bert` and `units`; names the BERT.
        texts: training text, a sentence each, for a vocabulary of its own.
        tokenizer: of CTC.

    Raises:
        InputError: no tokenizer or no BERT, or a tokenizer of other pieces than this BERT's.
    """
    if tokenizer is None:
        raise InputError(f"model {config.name}: needs --tokenizer")
    if config.units != "shared" or config.bert.folder is None:
        return make_assets(config.bert, texts, tokenizer.normaliser)
    vocab = BertVocab.from_tokenizer(tokenizer)
    found = open_bert(config.bert.folder, config.bert.strip_accents)
    if found.vocab != vocab.vocab:
        raise InputError(
            f"model.bert.folder={config.bert.folder}: the tokenizer is of another BERT; make it again with "
            "`speechkit tokenizer --kind wordpiece --vocab` and this folder"
        )
    return BertAssets(found.config, vocab)


def build_parts(config: Any, assets: Assets) -> Parts:
    """Builds both sides.

    Args:
        config: a `speechkit.models.ctc.Config` with `bert` and `units`.
        assets: with a tokenizer and a BERT.

    Raises:
        InputError: no tokenizer, no BERT, units that are not BERT's where they are to be shared, or what
            `speechkit.models.ctc.build` refuses.
    """
    if assets.tokenizer is None or assets.bert is None:
        what = "a BERT; name its folder in model.bert.folder" if assets.tokenizer else "--tokenizer"
        raise InputError(f"model {config.name}: needs {what}")
    encoder, cmvn, dim = build_encoder(config.encoder, config.input_dim, assets)
    check_options(config, encoder)
    units = TwoVocabularies(assets.tokenizer, assets.bert.vocab, config.units)
    return Parts(encoder, bert.build(config.bert, assets.bert), units, dim, cmvn)


def add_bert(model: CtcModel, config: Any, parts: Parts) -> None:
    """Puts `bert`, `units` and `config` into a CTC system, which then requires `bert_tokens` too."""
    model.requires = (*model.requires, "bert_tokens")
    model.config, model.bert, model.units = config, parts.bert, parts.units


def build_bridge(wanted: bool, dim: int, bert_dim: int) -> tuple[nn.Module, int]:
    """Brings frames to BERT's width, where that is wanted and they have another.

    Args:
        wanted: False leaves them as they are.
        dim: of the frames.
        bert_dim: of BERT.

    Returns:
        A linear layer and a norm, or nothing; and the width of what comes out.
    """
    if not wanted or dim == bert_dim:
        return nn.Identity(), dim
    return nn.Sequential(nn.Linear(dim, bert_dim), nn.LayerNorm(bert_dim)), bert_dim


def hear(model: CtcModel, batch: Batch, bridge: nn.Module | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Both things that are made of speech: frames for BERT's side to read, and what CTC says.

    Args:
        model: a system.
        batch: with its `inputs`.
        bridge: what the frames go through on their way to BERT, see `build_bridge`.

    Returns:
        H_A `(B, T, D_A)`, log-probabilities of CTC `(B, T, V)`, and `(B,)` frames.
    """
    frames, lengths = model.hear(batch)
    log_probs = log_softmax(model.head(model.dropout(frames)))
    return (frames if bridge is None else bridge(frames)), log_probs, lengths


def hear_nothing(model: CtcModel, batch: Batch, dim: int) -> tuple[Tensor, Tensor]:
    """What BERT's side is given in batches of text alone: H_A `(B, 0, dim)`, and `(B,)` zeros."""
    lengths = batch["bert_tokens"].lengths
    return model.head.weight.new_zeros(len(batch), 0, dim), torch.zeros_like(lengths)
