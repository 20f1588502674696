"""Embedding Replacement, a baseline of Wav-BERT (Zheng et al., 2021), after NAR-BERT-ASR (Yu and Chen, 2021).

    speech -> encoder -> H_A -> CTC
    learned positions read H_A -> H_pos -> BERT, instead of its word embeddings -> H_L -> cross entropy
    H_pos (or H_A), H_L -> Representation Aggregation -> cross entropy (or a second CTC); cross entropy

All positions are read at once, whatever was said; an answer ends with its first [SEP].
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.errors import InputError
from speechkit.fusion.embedding_replacement import EmbeddingReplacement, answer_lengths, targets
from speechkit.fusion.gate import mean_gates
from speechkit.fusion.representation_aggregation import Aggregated, RepresentationAggregation
from speechkit.losses.ctc import ctc_loss
from speechkit.losses.token_cross_entropy import token_cross_entropy
from speechkit.metrics.look import Look
from speechkit.models.assets import Assets
from speechkit.models.ctc import CtcModel, log_softmax
from speechkit.models.embedding_replacement_config import Config
from speechkit.models.linguistic_parts import (
    Heads,
    Parts,
    add_bert,
    bert_assets,
    build_bridge,
    build_parts,
    hear,
)
from speechkit.search.fused_outputs import FusedOutputs

__all__ = ["Config", "Replaced", "bert_assets", "build"]


class Fused(NamedTuple):
    """What the positions became.

    Attributes:
        known: H_L, `(B, max_len, D)`.
        both: what the aggregation made of the acoustic side and H_L.
    """

    known: Tensor
    both: Aggregated


class Replaced(CtcModel):
    """A CTC system whose frames fill the word slots of a BERT.

    Terms: `ctc`, `bert`, `hpos` or `ctc2`, and `ce`, each a sum over the batch, divided by its utterances.
    Watched: the mean of each gate, `gate_acoustic` and `gate_linguistic`.

    Args:
        config: see `Config`.
        parts: what it is made of.

    Attributes:
        recognise: heads of `encode` -> the text that is kept, as `""`, and that of each output by its name.
        longest_text: most word pieces of an utterance that is trained on.
        sep: class of [SEP] in the cross entropies, after the linguistic vocabulary.

    Raises:
        InputError: more positions than BERT has.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(config, *parts.acoustic)
        add_bert(self, config, parts)
        bert, self.sep = parts.bert, len(parts.units.vocab)
        self.slots, self.longest_text = config.replacement.max_len, config.replacement.longest_text
        if self.slots > bert.positions:
            raise InputError(
                f"model.replacement.max_len={self.slots}: BERT has {bert.positions} positions; choose fewer"
            )
        self.recognise = FusedOutputs(config.choice, parts.units)
        self.bridge, dim = build_bridge(config.bridge, parts.encoder.output_dim, bert.dim)
        self.replacement = EmbeddingReplacement(config.replacement, bert.dim, dim)
        self.by_frames = config.er_acoustic == "ha"
        dim = dim if self.by_frames else bert.dim
        self.aggregation = RepresentationAggregation(config.aggregation, dim, bert.dim)
        self._build_heads(dim)

    def _build_heads(self, dim: int) -> None:
        weights, classes = self.config.weights, self.sep + 1
        self.weights = {"ctc": weights.ctc, "bert": weights.bert}
        self.acoustic_head = self.ce_head = None
        if self.aggregation.acoustic is not None:
            self.acoustic_head = nn.Linear(dim, self.units.ctc_size if self.by_frames else classes)
            self.weights["ctc2" if self.by_frames else "hpos"] = weights.acoustic
        if self.aggregation.linguistic is not None:
            self.weights["ce"] = weights.ce
            if self.config.ce_head == "linear":
                self.ce_head = nn.Linear(self.bert.dim, classes)
        self.outputs = ("", *(name for name in self.weights if name != "bert"))
        self.gate_names = [f"gate_{side}" for side in self.aggregation.gated]

    # ---- what is minimised ------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, int]:
        """Utterances, of every term."""
        return dict.fromkeys([*self.weights, *self.gate_names], len(batch))

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""
        heard, first, lengths = self._hear(batch)
        fused = self.fuse(heard, lengths)
        tokens, truth = batch["tokens"], batch["bert_tokens"]
        ctc = partial(ctc_loss, lengths=lengths, tokens=tokens.values, token_lengths=tokens.lengths)
        wanted = targets(truth.values, truth.lengths, self.sep, self.slots)
        values = {"ctc": ctc(first).sum(), "bert": token_cross_entropy(fused.known, wanted, self._bert)}
        if self.acoustic_head is not None:
            state = self.dropout(fused.both.acoustic)
            if self.by_frames:
                values["ctc2"] = ctc(log_softmax(self.acoustic_head(state))).sum()
            else:
                values["hpos"] = token_cross_entropy(state, wanted, self.acoustic_head)
        if "ce" in self.weights:
            values["ce"] = token_cross_entropy(fused.both.linguistic, wanted, self._ce)
        values |= mean_gates(fused.both.gates, len(batch))
        return {name: (values[name], count) for name, count in self.counts(batch).items()}

    def _bert(self, states: Tensor) -> Tensor:
        """Logits `(..., V' + 1)` of BERT's own head, [SEP] last."""
        return self.bert.head(states, sep=True)

    def _ce(self, states: Tensor) -> Tensor:
        return self._bert(states) if self.ce_head is None else self.ce_head(states)

    # ---- the two sides ----------------------------------------------------------------------------------

    def _hear(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """H_A at the width at which the sides meet, log-probabilities of the first CTC, and frames."""
        return hear(self, batch, self.bridge)

    def fuse(self, heard: Tensor, lengths: Tensor, inspect: bool = False) -> Fused:
        """Positions gather speech, BERT reads them, and both sides read each other.

        Args:
            heard: H_A, `(B, T, D_A)`.
            lengths: `(B,)` frames.
            inspect: also give gates and attention maps.
        """
        positions = self.replacement(heard, lengths)
        sizes = torch.full_like(lengths, self.slots)
        known = self.bert.layers(self.bert.embed(words=positions), sizes)
        own = (heard, lengths) if self.by_frames else (positions, sizes)
        return Fused(known, self.aggregation(*own, known, sizes, inspect))

    # ---- recognition ------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Heads:
        """`ctc`, the first, and the outputs of the aggregation.

        Those are `ctc2`, `(B, T, V)` as `ctc`, or `hpos`, and `ce`: `(B, M, V' + 1)` log-probabilities over
        linguistic ids and [SEP], and the tokens before the first [SEP].
        """
        heard, first, lengths = self._hear(batch)
        both = self.fuse(heard, lengths).both
        heads: Heads = {"ctc": (first, lengths)}
        if "ctc2" in self.weights:
            heads["ctc2"] = (log_softmax(self.acoustic_head(both.acoustic)), lengths)
        if "hpos" in self.weights:
            heads["hpos"] = self._answers(self.acoustic_head(both.acoustic))
        if "ce" in self.weights:
            heads["ce"] = self._answers(self._ce(both.linguistic))
        return heads

    def _answers(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities as wide as the longest answer, and the tokens of each answer."""
        log_probs = log_softmax(logits)
        lengths = answer_lengths(log_probs.argmax(-1), self.sep)
        return log_probs[:, : int(lengths.max())], lengths

    def look(self, batch: Batch) -> Look:
        """What happened in a batch of one utterance; the tokens are BERT's answers, [SEP] included."""
        heard, _, lengths = self._hear(batch)
        fused = self.fuse(heard, lengths, inspect=True)
        best = self._bert(fused.known)[0].argmax(-1).tolist()
        size = min(best.index(self.sep) + 1 if self.sep in best else self.slots, self.slots)
        tokens = [*self.units.vocab.tokens, "[SEP]"]
        look = Look([tokens[id_] for id_ in best[:size]], int(lengths))
        look.tokens_read("replacement", self.replacement.attention(heard, lengths))
        if self.by_frames:
            look.add_pictures(fused.both.pictures)
            return look
        for side in self.aggregation.gated:  # positions that read each other: nothing to draw over frames
            look.add_gate(side, fused.both.pictures[f"{side}.gate"], frames=False)
        return look


def build(config: Config, assets: Assets) -> Replaced:
    """The model, with random weights; those of BERT are put in when a training starts.

    Raises:
        InputError: what `build_parts` refuses, or a BERT of fewer positions than the model has.
    """
    return Replaced(config, build_parts(config, assets))
