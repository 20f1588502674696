"""Wav-BERT (Zheng et al., 2021): a speech encoder and BERT, side by side, that read each other.

    speech -> encoder -> H_A -> CTC
    noisy truth, or CTC's tokens -> embeddings -> Embedding Attention (H_A) -> BERT -> H_L -> conditional MLM
    H_A, H_L -> Representation Aggregation -> second CTC on H_A', cross entropy on H_L'

In recognition BERT reads the greedy CTC hypothesis, once, and the surer of the last two outputs is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.fusion.conditional_mlm import NewHead
from speechkit.fusion.embedding_attention import Attended, EmbeddingAttention
from speechkit.fusion.gate import mean_gates
from speechkit.fusion.representation_aggregation import Aggregated, RepresentationAggregation
from speechkit.losses.ctc import ctc_loss
from speechkit.losses.token_cross_entropy import token_cross_entropy
from speechkit.metrics.look import Look
from speechkit.models.assets import Assets
from speechkit.models.ctc import CtcModel, log_softmax
from speechkit.models.linguistic_input import (
    IGNORE,
    LinguisticInput,
    inference_input,
    text_input,
    training_input,
)
from speechkit.models.linguistic_parts import (
    Heads,
    Parts,
    add_bert,
    bert_assets,
    build_bridge,
    build_parts,
    hear,
    hear_nothing,
)
from speechkit.models.wavbert_config import Config
from speechkit.search.fused_outputs import FusedOutputs
from speechkit.search.two_vocabularies import Recognised

__all__ = ["Config", "WavBert", "bert_assets", "build"]


WORD_SCALE = 0.5
"""Factor of CTC's scores of words at the start; it is learnt."""


class Fused(NamedTuple):
    """Both sides after they have read each other.

    Attributes:
        known: H_L, `(B, M, D)` with [CLS] and [SEP].
        both: what the aggregation made of H_A and H_L.
        told: `(B, M, V')` what CTC makes of every word, where the cross-entropy output is told.
        gates: side -> its gates, packed.
        pictures: gates and attention maps, where asked for.
    """

    known: Tensor
    both: Aggregated
    told: Tensor | None
    gates: dict[str, Tensor]
    pictures: dict[str, Tensor]

    def answers(self) -> Tensor:
        """`(B, M, D)` what the cross-entropy output reads; `(B, M, D + V')` where it is told CTC's scores."""
        states = self.both.linguistic
        return states if self.told is None else torch.cat([states, self.told.to(states.dtype)], -1)


class WavBert(CtcModel):
    """A CTC system with a BERT beside it.

    Terms: `ctc`, `cmlm`, `ctc2`, `ce`, each a sum over the batch, divided by its utterances; for batches of
    text alone `text_cmlm` and `text_ce`, by sentences. Watched: `truth`, the share of utterances of which
    BERT reads the truth, and the mean of each gate, such as `gate_acoustic`.

    Args:
        config: see `Config`.
        parts: what it is made of.

    Attributes:
        recognise: heads of `encode` -> the text that is kept, as `""`, and that of each output by its name.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(config, *parts.acoustic)
        add_bert(self, config, parts)
        self.recognise, bert = FusedOutputs(config.choice, parts.units), parts.bert
        self.outputs = ("", "ctc")
        self.bridge, self.dim = build_bridge(config.bridge, parts.encoder.output_dim, bert.dim)
        self.embedding_attention = None
        if config.embedding_attention is not None:
            self.embedding_attention = EmbeddingAttention(config.embedding_attention, bert.dim, self.dim)
        self.aggregation = RepresentationAggregation(config.aggregation, self.dim, bert.dim)
        modules = [self.embedding_attention, self.aggregation]
        self.gate_names = [f"gate_{side}" for module in modules if module for side in module.gated]
        self._build_heads()
        weights = {"ctc": config.weights.ctc, "cmlm": config.weights.cmlm}
        weights |= {"ctc2": config.weights.ctc2} if self.head2 is not None else {}
        weights |= {"ce": config.weights.ce} if self.speaks else {}
        self.outputs += tuple(name for name in ("ctc2", "ce") if name in weights)
        texts = [f"text_{name}" for name in ("cmlm", "ce") if name in weights and config.weights.text]
        self.text_requires = ("bert_tokens",) if texts else ()
        self.weights = {**weights, **dict.fromkeys(texts, config.weights.text)}

    def _build_heads(self) -> None:
        config, dim, size = self.config, self.dim, len(self.units.vocab)
        self.speaks = self.aggregation.linguistic is not None
        self.head2 = nn.Linear(dim, self.units.ctc_size) if self.aggregation.acoustic is not None else None
        self.cmlm_head = NewHead(self.bert.dim, size) if config.cmlm_head == "new" else None
        self.ce_head = nn.Linear(self.bert.dim, size) if self.speaks and config.ce_head == "linear" else None
        self.register_buffer("unheard", torch.zeros(size, dtype=torch.bool), persistent=False)
        self.word_scale = (
            nn.Parameter(torch.tensor(WORD_SCALE)) if self.speaks and config.word_scores else None
        )

    def hear_of(self, ids: Tensor) -> None:
        """Says which linguistic ids the transcripts of the training speech have."""
        self.unheard.fill_(self.config.spare_unheard).index_fill_(0, ids.to(self.unheard.device), False)
        self.unheard[0] = False

    # ---- what is minimised ------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, int]:
        """Utterances, of every term that the batch has."""
        spoken = self.inputs[0] in batch
        names = [name for name in self.weights if name.startswith("text_") != spoken]
        return dict.fromkeys([*names, "truth", *self.gate_names] if spoken else names, len(batch))

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""
        values = self._speech_loss(batch, update) if self.inputs[0] in batch else self._text_loss(batch)
        return {name: (values[name], count) for name, count in self.counts(batch).items()}

    def _speech_loss(self, batch: Batch, update: int) -> dict[str, Tensor]:
        heard, first, lengths = self._hear(batch)
        tokens, config = batch["tokens"], self.config.linguistic
        said = self.units.recognised(first, lengths)
        given = training_input(
            config,
            batch["bert_tokens"],
            said.tokens,
            batch.keys,
            update,
            len(self.units.vocab),
            self.bert.positions - 2,
            config.unsure(said.confidences),
        )
        picks = config.sampling.picks(batch.keys, update)
        fused = self.fuse(heard, lengths, given, said)
        values = {"ctc": ctc_loss(first, lengths, tokens.values, tokens.lengths).sum()}
        values["truth"] = picks.sum().to(first.device)
        if self.head2 is not None:
            second = log_softmax(self.head2(self.dropout(fused.both.acoustic)))
            values["ctc2"] = ctc_loss(second, lengths, tokens.values, tokens.lengths).sum()
        unheard = self.unheard if self.training else None
        return values | mean_gates(fused.gates, len(batch)) | self._linguistic_loss(fused, given, unheard)

    def _text_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Text alone: BERT and its side of the aggregation, with no frame to look at."""
        truth = batch["bert_tokens"]
        given = text_input(self.config.linguistic, truth, batch.keys, len(self.units.vocab))
        fused = self.fuse(*hear_nothing(self, batch, self.dim), given)
        values = self._linguistic_loss(fused, given)
        return {f"text_{name}": value for name, value in values.items()}

    def _linguistic_loss(
        self, fused: Fused, given: LinguisticInput, spared: Tensor | None = None
    ) -> dict[str, Tensor]:
        values = {"cmlm": _cross_entropy(fused.known, given.cmlm, self._cmlm_logits, spared)}
        if self.speaks:
            values["ce"] = _cross_entropy(fused.answers(), given.ce, self._ce_logits, spared)
        return values

    def _cmlm_logits(self, states: Tensor) -> Tensor:
        return self.bert.head(states) if self.cmlm_head is None else self.cmlm_head(states)

    def _ce_logits(self, states: Tensor) -> Tensor:
        """From states, and what CTC makes of each word beside them, if it is told."""
        states, told = states[..., : self.bert.dim], states[..., self.bert.dim :]
        logits = self._cmlm_logits(states) if self.ce_head is None else self.ce_head(states)
        return logits if self.word_scale is None or not told.size(-1) else logits + self.word_scale * told

    # ---- the two sides ----------------------------------------------------------------------------------

    def _hear(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """H_A at the width at which the sides meet, log-probabilities of the first CTC, and frames."""
        return hear(self, batch, self.bridge)

    def fuse(
        self,
        heard: Tensor,
        lengths: Tensor,
        given: LinguisticInput,
        said: Recognised | None = None,
        inspect: bool = False,
    ) -> Fused:
        """BERT reads, and both sides read each other.

        Args:
            heard: H_A, `(B, T, D_A)`.
            lengths: `(B,)` frames.
            given: what BERT reads.
            said: what CTC recognised, for attention with a clock and for the scores of words; None for text
                alone, which BERT reads even where it reads only [MASK] beside speech.
            inspect: also give gates and attention maps.
        """
        if self.config.reads == "masks" and said is not None:
            given = given.all_masked()
        ids, sizes = given.bert_ids(self.bert.bert_ids, self.units.vocab)
        clocks = None if said is None else (given.clock_of_all(), said.clock.to(heard.device))
        attended = Attended(self.bert.embed(ids), {}, {})
        if self.embedding_attention is not None:
            attended = self.embedding_attention(attended.embeddings, sizes, heard, lengths, inspect, clocks)
        known = self.bert.layers(attended.embeddings, sizes)
        both = self.aggregation(heard, lengths, known, sizes, inspect, clocks)
        told = None
        if said is not None and self.word_scale is not None:
            told = F.pad(given.scores_of(said.scores.to(heard)), (0, 0, 1, 1))
        return Fused(known, both, told, attended.gates | both.gates, attended.pictures | both.pictures)

    # ---- recognition ------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Heads:
        """`ctc`, the first; `ctc2` where there is one, both `(B, T, V)`; `ce`, where there is one.

        `ce` is `(B, M, V')` log-probabilities over linguistic ids, without [CLS] and [SEP].
        """
        heard, first, lengths = self._hear(batch)
        given, said = self._recognised(first, lengths)
        heads: Heads = {"ctc": (first, lengths)}
        for _ in range(self.config.refine):
            fused = self.fuse(heard, lengths, given, said)
            if self.speaks:
                answers = log_softmax(self._ce_logits(fused.answers()[:, 1:-1]))
                heads["ce"] = (answers, given.lengths)
                given = given.reread(answers)
        if self.head2 is not None:
            heads["ctc2"] = (log_softmax(self.head2(fused.both.acoustic)), lengths)
        return heads

    def _recognised(self, first: Tensor, lengths: Tensor) -> tuple[LinguisticInput, Recognised]:
        """What BERT reads where nobody knows the truth, and what it is made of."""
        said = self.units.recognised(first, lengths)
        unsure = self.config.linguistic.unsure(said.confidences)
        return inference_input(said.tokens, self.bert.positions - 2, unsure).to(first.device), said

    def look(self, batch: Batch) -> Look:
        """What happens in a batch of one utterance; the tokens are those that BERT reads, the first time."""
        heard, first, lengths = self._hear(batch)
        given, said = self._recognised(first, lengths)
        shown = given.all_masked() if self.config.reads == "masks" else given
        ids, _ = shown.bert_ids(self.bert.bert_ids, self.units.vocab)
        look = Look([self.units.vocab.vocab[id_] for id_ in ids[0].tolist()], int(lengths))
        look.add_pictures(self.fuse(heard, lengths, given, said, inspect=True).pictures)
        return look


def _cross_entropy(
    states: Tensor, targets: Tensor, logits: Callable[[Tensor], Tensor], spared: Tensor | None
) -> Tensor:
    """Summed over the positions that have a target; only these go through the output layer.

    Args:
        states: `(B, M, D)` with [CLS] and [SEP].
        targets: `(B, M - 2)` without.
        logits: the output layer.
        spared: `(V',)` bool, ids that are no wrong answers, or None.
    """
    targets = F.pad(targets, (1, 1), value=IGNORE)
    if spared is None:
        return token_cross_entropy(states, targets, logits)
    return token_cross_entropy(states, targets, lambda x: logits(x).masked_fill(spared, -torch.inf))


def build(config: Config, assets: Assets) -> WavBert:
    """The model, with random weights; those of BERT are put in when a training starts.

    Raises:
        InputError: what `build_parts` refuses.
    """
    return WavBert(config, build_parts(config, assets))
