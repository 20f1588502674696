"""Adapter-BERT: BERT fills in masks while adapters in its blocks read the speech (AB-Net: Guo et al., 2020).

    speech -> encoder -> H_A -> CTC, which also tells how many tokens there are
    noisy truth -> BERT with adapters that read H_A -> BERT's own head -> conditional MLM
    text alone: the same with an H_A of no frames -> masked language model

In recognition all tokens begin as [MASK] and are predicted in several passes (`search/mask_predict.py`).
"""

from __future__ import annotations

from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor

from speechkit.data.batch import Batch
from speechkit.errors import InputError
from speechkit.fusion.adapter_bert import BertAdapters
from speechkit.fusion.length_predictor import LengthPredictor
from speechkit.losses.ctc import ctc_loss
from speechkit.losses.token_cross_entropy import IGNORE, token_cross_entropy
from speechkit.metrics.look import Look
from speechkit.models import linguistic_input
from speechkit.models.adapter_bert_config import Config
from speechkit.models.assets import Assets
from speechkit.models.ctc import CtcModel, log_softmax
from speechkit.models.linguistic_input import LinguisticInput, text_input
from speechkit.models.linguistic_parts import (
    Heads,
    Parts,
    add_bert,
    bert_assets,
    build_parts,
    hear,
    hear_nothing,
)
from speechkit.search import mask_predict
from speechkit.search.greedy import ctc_greedy
from speechkit.search.mask_predict import Filled, Predict, length_candidates

__all__ = ["AdapterBert", "Config", "bert_assets", "build"]


class AdapterBert(CtcModel):
    """A BERT that reads speech inside its blocks, and a CTC output beside it.

    Terms: `ctc`; `cmlm`, the cross entropy of the hidden tokens; `length`, where lengths are predicted; for
    batches of text alone `text_cmlm`. All are divided by utterances (or sentences), or with `normaliser:
    tokens` by CTC's tokens, the hidden tokens and utterances.

    Args:
        config: see `Config`.
        parts: what it is made of.

    Raises:
        InputError: the adapters' heads do not divide BERT's width.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(config, *parts.acoustic)
        add_bert(self, config, parts)
        bert, dim, heads = parts.bert, parts.encoder.output_dim, config.adapters.heads
        self.outputs = ("", "ctc")
        self.longest = bert.positions - 2
        self.adapters = BertAdapters(config.adapters, len(bert.layer_modules), bert.dim, dim)
        self.weights, self.length_predictor = asdict(config.weights), None
        if config.length == "predict":
            self.length_predictor = LengthPredictor(dim, bert.dim, heads, self.longest)
        else:
            del self.weights["length"]
        self.text_requires, text = (), self.weights.pop("text")
        if text:
            self.text_requires, self.weights["text_cmlm"] = ("bert_tokens",), text
        if config.freeze_bert:
            bert.requires_grad_(False)

    # ---- what is minimised ------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, int]:
        """The normaliser of each term that the batch has."""
        spoken = self.inputs[0] in batch
        counts = {name: len(batch) for name in self.weights if name.startswith("text_") != spoken}
        if self.normaliser == "tokens":
            hidden = int((self._hidden(batch).cmlm != IGNORE).sum())
            counts |= {"ctc": int(batch["tokens"].lengths.sum())} if spoken else {}
            counts["cmlm" if spoken else "text_cmlm"] = hidden
        return counts

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""
        given = self._hidden(batch)
        if self.inputs[0] in batch:
            values = self._speech_loss(batch, given)
        else:
            silence = hear_nothing(self, batch, self.encoder.output_dim)
            values = {"text_cmlm": self._masked_lm(*silence, given)}
        return {name: (values[name], count) for name, count in self.counts(batch).items()}

    def _speech_loss(self, batch: Batch, given: LinguisticInput) -> dict[str, Tensor]:
        frames, first, lengths = hear(self, batch)
        tokens = batch["tokens"]
        values = {"ctc": ctc_loss(first, lengths, tokens.values, tokens.lengths).sum()}
        values["cmlm"] = self._masked_lm(frames, lengths, given)
        if self.length_predictor is not None:
            said = log_softmax(self.length_predictor(frames, lengths))
            values["length"] = F.nll_loss(said, given.lengths, reduction="sum")
        return values

    def _masked_lm(self, frames: Tensor, lengths: Tensor, given: LinguisticInput) -> Tensor:
        """Cross entropy of the hidden tokens, for BERT with adapters that read so many frames, or none."""
        ids, sizes = given.bert_ids(self.bert.bert_ids, self.units.vocab)
        heard = self.adapters.hear(frames, lengths)
        known = self.adapters(self.bert, self.bert.embed(ids), sizes, heard)[:, 1:-1]
        return token_cross_entropy(known, given.cmlm, self.bert.head, self.config.label_smoothing)

    def _hidden(self, batch: Batch) -> LinguisticInput:
        """The truth with noise."""
        config = linguistic_input.Config(noise=self.config.noise)
        return text_input(config, batch["bert_tokens"], batch.keys, len(self.units.vocab))

    # ---- recognition ------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Heads:
        """What masks are filled in from: `ctc`, `(B, T, V)`, and `acoustic`, H_A `(B, T, D)`.

        With `length: predict` also `length`, `(B, 1, N + 1)` log-probabilities of 0 ... N tokens; with
        `length: oracle`, where the batch has it, `reference`, `(B, M, 1)` and its lengths.
        """
        frames, first, lengths = hear(self, batch)
        acoustic = frames.to(torch.promote_types(frames.dtype, torch.float32))  # autocast is over by then
        heads: Heads = {"ctc": (first, lengths), "acoustic": (acoustic, lengths)}
        if self.length_predictor is not None:
            said = log_softmax(self.length_predictor(frames, lengths))
            heads["length"] = (said[:, None], torch.ones_like(lengths))
        if self.config.length == "oracle" and "bert_tokens" in batch:
            reference = batch["bert_tokens"]
            heads["reference"] = (reference.values[..., None], reference.lengths)
        return heads

    def expected(self, heads: Heads) -> Tensor:
        """`(B,)` how many tokens each utterance is thought to have.

        Raises:
            InputError: they are to be taken from references, and there are none.
        """
        log_probs, lengths = heads["ctc"]
        if self.config.length == "predict":
            return heads["length"][0][:, 0].argmax(-1)
        if self.config.length == "ctc":
            rows = ctc_greedy(log_probs, lengths, self.units.tokenizer.blank)
            return torch.tensor([len(self.units.linguistic(ids)) for ids in rows]).to(lengths.device)
        if "reference" not in heads:
            raise InputError(
                "model.length=oracle: takes lengths from the references, and decoding has none; the error "
                "rate in metrics.jsonl is the bound"
            )
        return heads["reference"][1]

    def predictor(self, heads: Heads, copies: int = 1) -> Predict:
        """What `mask_predict` asks; the speech is read once, however many passes follow.

        Args:
            heads: from `encode`.
            copies: rows of text for each utterance.

        Returns:
            A function of `(R, M)` linguistic ids, V' for [MASK] and V' + 1 for [PAD], and `(R,)` lengths, to
            `(R, M, V')` log-probabilities.
        """
        heard, mask = self.adapters.hear(*heads["acoustic"], copies), len(self.units.vocab)

        def predict(ids: Tensor, lengths: Tensor) -> Tensor:
            whole, sizes = self.bert.sequences(ids.masked_fill(ids >= mask, 0), lengths, ids == mask)
            known = self.adapters(self.bert, self.bert.embed(whole), sizes, heard)
            return log_softmax(self.bert.head(known[:, 1:-1]))

        return predict

    @torch.no_grad()
    def fill(self, heads: Heads, config: mask_predict.Config) -> list[Filled]:
        """The best answer for each utterance, in linguistic ids.

        Args:
            heads: from `encode`.
            config: how many passes, and which lengths are tried.

        Raises:
            InputError: see `expected`.
        """
        lengths = length_candidates(self.expected(heads), config.length_beam, self.longest)
        mask = len(self.units.vocab)
        predict = self.predictor(heads, config.length_beam)
        return mask_predict.mask_predict(predict, lengths, config, mask, mask + 1)

    def look(self, batch: Batch) -> Look:
        """Where the tokens of the answer listen, in the adapter of each block; a batch of one utterance."""
        heads = self.encode(batch)
        answer = torch.tensor([self.fill(heads, self.config.filling)[0].tokens], dtype=torch.int64)
        lengths = heads["ctc"][1]
        whole, sizes = self.bert.sequences(
            answer.to(lengths.device), torch.full_like(lengths, answer.size(1))
        )
        heard, maps = self.adapters.hear(*heads["acoustic"]), []
        self.adapters(self.bert, self.bert.embed(whole), sizes, heard, maps)
        look = Look([self.units.vocab.vocab[id_] for id_ in whole[0].tolist()], int(lengths))
        for number, weights in enumerate(maps, start=1):
            look.tokens_read(f"block {number}", weights)
        return look

    def recognise(self, heads: Heads) -> dict[str, list[str]]:
        """The text that was filled in, as `""`, and that of CTC."""
        filled = [self.units.vocab.decode(answer.tokens) for answer in self.fill(heads, self.config.filling)]
        tokenizer = self.units.tokenizer
        heard = [tokenizer.decode(ids) for ids in ctc_greedy(*heads["ctc"], tokenizer.blank)]
        return {"": filled, "ctc": heard}


def build(config: Config, assets: Assets) -> AdapterBert:
    """The model, with random weights; those of BERT are put in when a training starts.

    Raises:
        InputError: what `build_parts` refuses, or heads that do not divide BERT's width.
    """
    return AdapterBert(config, build_parts(config, assets))
