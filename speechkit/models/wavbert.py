"""Wav-BERT (Zheng et al., 2021): a speech encoder and BERT, side by side, that read each other.

    speech -> encoder -> H_A -> CTC
    noisy truth, or CTC's tokens -> embeddings -> Embedding Attention (H_A) -> BERT -> H_L -> conditional MLM
    H_A, H_L -> Representation Aggregation -> second CTC on H_A', cross entropy on H_L'

In recognition BERT reads the greedy CTC hypothesis, once, and the surer of the last two outputs is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.encoders import bert
from speechkit.encoders.bert import Bert, BertAssets
from speechkit.errors import InputError
from speechkit.fusion.conditional_mlm import NewHead
from speechkit.fusion.embedding_attention import EmbeddingAttention
from speechkit.fusion.representation_aggregation import Aggregated, RepresentationAggregation
from speechkit.integrations.bert import make_assets, open_bert
from speechkit.losses.ctc import ctc_loss
from speechkit.models.assets import Assets
from speechkit.models.ctc import CtcModel, check_options, log_softmax
from speechkit.models.inputs import build_encoder
from speechkit.models.linguistic_input import (
    IGNORE,
    LinguisticInput,
    inference_input,
    text_input,
    training_input,
)
from speechkit.models.wavbert_config import Config
from speechkit.search.fused_outputs import FusedOutputs
from speechkit.search.two_vocabularies import TwoVocabularies
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.tokenizer import Tokenizer

__all__ = ["Config", "WavBert", "build"]

Heads = dict[str, tuple[Tensor, Tensor]]


class Fused(NamedTuple):
    """Both sides after they have read each other.

    Attributes:
        known: H_L, `(B, M, D)` with [CLS] and [SEP].
        both: what the aggregation made of H_A and H_L.
        pictures: gates and attention maps, where asked for.
    """

    known: Tensor
    both: Aggregated
    pictures: dict[str, Tensor]


class WavBert(CtcModel):
    """A CTC system with a BERT beside it.

    Terms: `ctc`, `cmlm`, `ctc2`, `ce`, each a sum over the batch, divided by its utterances; for batches of
    text alone `text_cmlm` and `text_ce`, by sentences. Watched: `truth`, the share of utterances of which
    BERT reads the truth.

    Args:
        config: see `Config`.
        encoder: of speech.
        bert: the linguistic encoder.
        units: which tokens of CTC are which of BERT.
        input_dim: F of features, None for samples.
        cmvn: normalises features, or `nn.Identity()`.
    """

    text_requires = ("bert_tokens",)

    def __init__(
        self,
        config: Config,
        encoder: nn.Module,
        bert: Bert,
        units: TwoVocabularies,
        input_dim: int | None,
        cmvn: nn.Module,
    ) -> None:
        super().__init__(config, encoder, units.ctc_size, input_dim, cmvn)
        self.requires = (*self.requires, "bert_tokens")
        self.config, self.bert, self.units = config, bert, units
        self.reader = FusedOutputs(config.choice, units)
        self.outputs = ("", "ctc")
        self.bridge, dim = nn.Identity(), encoder.output_dim
        if config.bridge and dim != bert.dim:
            self.bridge = nn.Sequential(nn.Linear(dim, bert.dim), nn.LayerNorm(bert.dim))
            dim = bert.dim
        self.embedding_attention = None
        if config.embedding_attention is not None:
            self.embedding_attention = EmbeddingAttention(config.embedding_attention, bert.dim, dim)
        self.aggregation = RepresentationAggregation(config.aggregation, dim, bert.dim)
        self._build_heads(dim)
        weights = {"ctc": config.weights.ctc, "cmlm": config.weights.cmlm}
        weights |= {"ctc2": config.weights.ctc2} if self.head2 is not None else {}
        weights |= {"ce": config.weights.ce} if self.speaks else {}
        self.outputs += tuple(name for name in ("ctc2", "ce") if name in weights)
        self.weights = {**weights, "text_cmlm": config.weights.text, "text_ce": config.weights.text}
        if not self.speaks:
            del self.weights["text_ce"]

    def _build_heads(self, dim: int) -> None:
        config, size = self.config, len(self.units.vocab)
        self.speaks = self.aggregation.linguistic is not None
        self.head2 = nn.Linear(dim, self.units.ctc_size) if self.aggregation.acoustic is not None else None
        self.cmlm_head = NewHead(self.bert.dim, size) if config.cmlm_head == "new" else None
        self.ce_head = nn.Linear(self.bert.dim, size) if self.speaks and config.ce_head == "linear" else None

    # ---- what is minimised ------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, int]:
        """Utterances, of every term that the batch has."""
        spoken = self.inputs[0] in batch
        names = [name for name in self.weights if name.startswith("text_") != spoken]
        return dict.fromkeys([*names, "truth"] if spoken else names, len(batch))

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""
        values = self._speech_loss(batch, update) if self.inputs[0] in batch else self._text_loss(batch)
        return {name: (values[name], count) for name, count in self.counts(batch).items()}

    def _speech_loss(self, batch: Batch, update: int) -> dict[str, Tensor]:
        heard, first, lengths = self._hear(batch)
        tokens, config = batch["tokens"], self.config.linguistic
        heard_tokens, sure = self.units.recognised(first, lengths)
        given = training_input(
            config,
            batch["bert_tokens"],
            heard_tokens,
            batch.keys,
            update,
            len(self.units.vocab),
            self.bert.positions - 2,
            config.unsure(sure),
        )
        picks = config.sampling.picks(batch.keys, update)
        fused = self.fuse(heard, lengths, given)
        values = {"ctc": ctc_loss(first, lengths, tokens.values, tokens.lengths).sum()}
        values["truth"] = picks.sum().to(first.device)
        if self.head2 is not None:
            second = log_softmax(self.head2(self.dropout(fused.both.acoustic)))
            values["ctc2"] = ctc_loss(second, lengths, tokens.values, tokens.lengths).sum()
        return values | self._linguistic_loss(fused, given)

    def _text_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Text alone: BERT and its side of the aggregation, with no frame to look at."""
        truth = batch["bert_tokens"]
        given = text_input(self.config.linguistic, truth, batch.keys, len(self.units.vocab))
        nothing = truth.lengths.new_zeros(len(batch))
        dim = self.bert.dim if isinstance(self.bridge, nn.Sequential) else self.encoder.output_dim
        silence = self.head.weight.new_zeros(len(batch), 0, dim)
        values = self._linguistic_loss(self._fuse(silence, nothing, given), given)
        return {f"text_{name}": value for name, value in values.items()}

    def _linguistic_loss(self, fused: Fused, given: LinguisticInput) -> dict[str, Tensor]:
        values = {"cmlm": self._cross_entropy(fused.known, given.cmlm, self._cmlm_logits)}
        if self.speaks:
            values["ce"] = self._cross_entropy(fused.both.linguistic, given.ce, self._ce_logits)
        return values

    def _cross_entropy(self, states: Tensor, targets: Tensor, logits: object) -> Tensor:
        """Summed over the positions that have a target; only these go through the output layer."""
        targets = F.pad(targets, (1, 1), value=IGNORE).flatten()
        places = (targets != IGNORE).nonzero().squeeze(1)
        chosen = logits(states.flatten(0, 1).index_select(0, places))
        with torch.autocast(chosen.device.type, enabled=False):
            chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
            return F.cross_entropy(chosen, targets.index_select(0, places), reduction="sum")

    def _cmlm_logits(self, states: Tensor) -> Tensor:
        return self.bert.head(states) if self.cmlm_head is None else self.cmlm_head(states)

    def _ce_logits(self, states: Tensor) -> Tensor:
        return self._cmlm_logits(states) if self.ce_head is None else self.ce_head(states)

    # ---- the two sides ----------------------------------------------------------------------------------

    def _hear(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """H_A at the width at which the sides meet, log-probabilities of the first CTC, and frames."""
        output = self.encode_frames(batch)
        first = log_softmax(self.head(self.dropout(output.frames)))
        return self.bridge(output.frames), first, output.lengths

    def fuse(self, heard: Tensor, lengths: Tensor, given: LinguisticInput, inspect: bool = False) -> Fused:
        """BERT reads, and both sides read each other.

        Args:
            heard: H_A, `(B, T, D_A)`.
            lengths: `(B,)` frames.
            given: what BERT reads.
            inspect: also give gates and attention maps.
        """
        if self.config.reads == "masks":
            given = given.all_masked()
        return self._fuse(heard, lengths, given, inspect)

    def _fuse(self, heard: Tensor, lengths: Tensor, given: LinguisticInput, inspect: bool = False) -> Fused:
        ids, sizes = given.bert_ids(self.bert.bert_ids, self.units.vocab)
        embeddings, pictures = self.bert.embed(ids), {}
        if self.embedding_attention is not None:
            embeddings, shown = self.embedding_attention(embeddings, sizes, heard, lengths, inspect)
            pictures.update(shown)
        known = self.bert.layers(embeddings, sizes)
        both = self.aggregation(heard, lengths, known, sizes, inspect)
        return Fused(known, both, {**pictures, **both.pictures})

    # ---- recognition ------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Heads:
        """`ctc`, the first; `ctc2` where there is one, both `(B, T, V)`; `ce`, where there is one.

        `ce` is `(B, M, V')` log-probabilities over linguistic ids, without [CLS] and [SEP].
        """
        heard, first, lengths = self._hear(batch)
        tokens, sure = self.units.recognised(first, lengths)
        unsure = self.config.linguistic.unsure(sure)
        given = inference_input(tokens, self.bert.positions - 2, unsure).to(first.device)
        heads: Heads = {"ctc": (first, lengths)}
        for _ in range(self.config.refine):
            fused = self.fuse(heard, lengths, given)
            if self.speaks:
                answers = log_softmax(self._ce_logits(fused.both.linguistic[:, 1:-1]))
                heads["ce"] = (answers, given.lengths)
                given = given.reread(answers)
        if self.head2 is not None:
            heads["ctc2"] = (log_softmax(self.head2(fused.both.acoustic)), lengths)
        return heads

    def recognise(self, heads: Heads) -> dict[str, list[str]]:
        """The text that is kept, as `""`, and that of each output under its name."""
        return self.reader(heads)


def bert_assets(config: Config, texts: Sequence[str], tokenizer: Tokenizer | None) -> BertAssets:
    """Architecture and linguistic vocabulary: the tokenizer's pieces where they are shared.

    Args:
        config: names the BERT.
        texts: training text, a sentence each, for a vocabulary of its own.
        tokenizer: of CTC.

    Raises:
        InputError: no tokenizer or no BERT, or a tokenizer of other pieces than this BERT's.
    """
    if tokenizer is None:
        raise InputError("model wavbert: needs --tokenizer")
    if config.units == "retokenised" or config.bert.folder is None:
        return make_assets(config.bert, texts, tokenizer.normaliser)
    found, vocab = (
        open_bert(config.bert.folder, config.bert.strip_accents),
        BertVocab.from_tokenizer(tokenizer),
    )
    if found.vocab != vocab.vocab:
        raise InputError(
            f"model.bert.folder={config.bert.folder}: the tokenizer is of another BERT; make it again with "
            "`speechkit tokenizer --kind wordpiece --vocab` and this folder"
        )
    return BertAssets(found.config, vocab)


def build(config: Config, assets: Assets) -> WavBert:
    """The model, with random weights; those of BERT are put in when a training starts.

    Raises:
        InputError: no tokenizer, no BERT, units that are not BERT's where they are to be shared, or what
            `speechkit.models.ctc.build` refuses.
    """
    if assets.tokenizer is None or assets.bert is None:
        what = "a BERT; name its folder in model.bert.folder" if assets.tokenizer else "--tokenizer"
        raise InputError(f"model wavbert: needs {what}")
    encoder, cmvn, dim = build_encoder(config.encoder, config.input_dim, assets)
    check_options(config, encoder)
    units = TwoVocabularies(assets.tokenizer, assets.bert.vocab, shared=config.units == "shared")
    return WavBert(config, encoder, bert.build(config.bert, assets.bert), units, dim, cmvn)
