"""w2v-CIF-BERT (Yi et al., 2021): integrate-and-fire puts speech into BERT's word slots.

    speech -> encoder -> last channel: weights; the others: content -> CTC
    content, integrated by the weights -> a_u, a vector a token -> copy of BERT's head -> acoustic logits
    [CLS], true words or a_u, [SEP] -> BERT -> BERT's head -> linguistic logits
    lambda_am * acoustic + lambda_lm * linguistic logits -> cross entropy where the slot was not the true word

In recognition the weights tell how many tokens there are, and a slot holds the word that the acoustic output
is sure of, else a_u.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.data.batch import Batch
from speechkit.fusion import confidence
from speechkit.fusion.cif import Cif, CifOutput, quantity_loss, scale, token_counts
from speechkit.fusion.gold_rate import GoldRate, mix
from speechkit.fusion.head_copy import HeadCopy
from speechkit.layers.masks import padding_mask
from speechkit.losses.ctc import ctc_loss
from speechkit.losses.token_cross_entropy import IGNORE, token_cross_entropy
from speechkit.metrics.look import Look
from speechkit.models.assets import Assets
from speechkit.models.cif_bert_config import Config
from speechkit.models.ctc import CtcModel, log_softmax
from speechkit.models.linguistic_parts import Heads, Parts, add_bert, bert_assets, build_parts
from speechkit.search.fused_outputs import FusedOutputs

__all__ = ["CifBert", "Config", "bert_assets", "build"]


class CifBert(CtcModel):
    """A speech encoder, integrate-and-fire, and a BERT behind them.

    Terms: `ctc`; `ce`, the cross entropy at slots that are not gold; `quantity`, by utterances. Watched:
    `gold`, the share of slots that hold the true word. In evaluation no slot is gold.

    It learns from no text alone: without speech there is no vector for a slot, and where all slots hold true
    words nothing is asked.

    Args:
        config: see `Config`.
        parts: what it is made of; the last channel of its encoder tells when a token is complete.

    Attributes:
        recognise: heads of `encode` -> the text of the cross entropy, as `""` and `ce`, and that of CTC.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__(config, *parts.acoustic)
        add_bert(self, config, parts)
        bert, units, dim, self.update = parts.bert, parts.units, parts.encoder.output_dim, 0
        self.recognise = FusedOutputs(confidence.Config(select="ce"), units)
        self.outputs, self.weights = ("", "ctc"), asdict(config.weights)
        self.gold = GoldRate(config.gold)
        self.cif = Cif(dim, bert.dim)
        self.acoustic_head = HeadCopy(bert, range(len(units.vocab)))
        self.bridge = None
        if config.ctc_head == "bert":
            self.head = HeadCopy(bert, units.vocab.shared_ids(units.tokenizer))
            if dim != bert.dim:
                self.bridge = nn.Linear(dim - 1, bert.dim)
        if not config.train_words:  # also the rows of BERT's own output layer, where the two are one
            bert.model.bert.embeddings.word_embeddings.weight.requires_grad_(False)

    def copy_bert(self) -> None:
        """Copies BERT's head into those that begin as it, after weights were put into BERT."""
        for part in self.modules():
            if isinstance(part, HeadCopy):
                part.take(self.bert)

    # ---- what is minimised ------------------------------------------------------------------------------

    def set_update(self, update: int) -> None:
        """Brings the gold rate to the given update."""
        self.update = update

    def counts(self, batch: Batch) -> dict[str, int]:
        """The normaliser of each term, at the update that was set."""
        return self._counts(batch, self._picks(batch, self.update))

    def _counts(self, batch: Batch, gold: Tensor) -> dict[str, int]:
        tokens = int(batch["bert_tokens"].lengths.sum())
        counts = {**dict.fromkeys(self.weights, len(batch)), "gold": tokens}
        if self.normaliser == "tokens":
            counts["ctc"], counts["ce"] = int(batch["tokens"].lengths.sum()), tokens - int(gold.sum())
        return counts

    def _picks(self, batch: Batch, update: int) -> Tensor:
        """`(B, M)` bool, gold slots."""
        gold = self.gold.picks(batch.keys, batch["bert_tokens"].lengths, update)
        return gold if self.training else torch.zeros_like(gold)

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""
        tokens, truth, sizes = batch["tokens"], batch["bert_tokens"].values, batch["bert_tokens"].lengths
        gold = self._picks(batch, update)
        truth = truth[:, : gold.size(1)]
        first, lengths, fired = self._listen(batch, sizes)
        if self.training:
            known = self.read(fired, truth, gold)
        else:
            known = self.read(fired, *self.gold.sure(log_softmax(self.acoustic_head(fired.vectors))))
        asked = ~gold & ~padding_mask(sizes, gold.size(1))
        values = {
            "ctc": ctc_loss(first, lengths, tokens.values, tokens.lengths).sum(),
            "ce": token_cross_entropy(
                torch.cat([fired.vectors, known], -1), truth.where(asked, IGNORE), self._logits
            ),
            "quantity": quantity_loss(fired.alpha, lengths, sizes).to(first.dtype),
            "gold": gold.sum(),
        }
        return {name: (values[name], count) for name, count in self._counts(batch, gold).items()}

    # ---- the two sides ----------------------------------------------------------------------------------

    def _listen(self, batch: Batch, counts: Tensor | None = None) -> tuple[Tensor, Tensor, CifOutput]:
        """Log-probabilities of CTC, frames, and what was fired: so many tokens, or as many as there seem."""
        frames, lengths = self.hear(batch)
        fired = self.cif(frames, lengths, counts, self.bert.positions - 2)
        content = F.pad(fired.content, (0, 1)) if self.bridge is None else self.bridge(fired.content)
        return log_softmax(self.head(self.dropout(content))), lengths, fired

    def read(self, fired: CifOutput, tokens: Tensor, said: Tensor) -> Tensor:
        """BERT's states of slots that hold words or acoustic vectors.

        While none of BERT's blocks learn, no gradient goes back through them either (as published).

        Args:
            fired: from integrate-and-fire.
            tokens: `(B, U)` linguistic ids.
            said: `(B, U)` bool, where the word stands; elsewhere the acoustic vector does.

        Returns:
            `(B, U, D)`, without [CLS] and [SEP]; arbitrary beyond the counts.
        """
        ids, sizes = self.bert.sequences(tokens, fired.counts)
        spoken = ~said & ~padding_mask(fired.counts, said.size(1))
        words, vectors = self.bert.word_embeddings(ids), F.pad(fired.vectors, (0, 0, 1, 1))
        slots = mix(words, vectors, ~F.pad(spoken, (1, 1)))
        learns = any(parameter.requires_grad for parameter in self.bert.layer_modules.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            return self.bert.layers(self.bert.embed(words=slots), sizes)[:, 1:-1]

    def _logits(self, both: Tensor) -> Tensor:
        """`(..., 2 D)` acoustic vectors and BERT's states to `(..., V')`."""
        vectors, known = both.split(self.bert.dim, -1)
        return self._mixed(self.acoustic_head(vectors), known)

    def _mixed(self, acoustic: Tensor, known: Tensor) -> Tensor:
        return self.config.lambda_am * acoustic + self.config.lambda_lm * self.bert.head(known)

    # ---- recognition ------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Heads:
        """`ctc`, `(B, T, V)`, and `ce`, `(B, U, V')` log-probabilities over linguistic ids."""
        first, lengths, fired = self._listen(batch)
        return {"ctc": (first, lengths), "ce": (self._answers(fired), fired.counts)}

    def _answers(self, fired: CifOutput) -> Tensor:
        acoustic = self.acoustic_head(fired.vectors)
        known = self.read(fired, *self.gold.sure(log_softmax(acoustic)))
        return log_softmax(self._mixed(acoustic, known))

    def look(self, batch: Batch) -> Look:
        """What fires in a batch of one utterance; the tokens are those that are recognised."""
        _, lengths, fired = self._listen(batch)
        said = self._answers(fired)[0].argmax(-1).tolist() if fired.counts[0] else []
        alpha = scale(fired.alpha, lengths, token_counts(fired.alpha, lengths))
        return Look(self.units.vocab.pieces(said), int(lengths), alpha=alpha[0].float().cpu())


def build(config: Config, assets: Assets) -> CifBert:
    """The model, with random weights; those of BERT are put in when a training starts.

    Raises:
        InputError: what `build_parts` refuses.
    """
    return CifBert(config, build_parts(config, assets))
