"""An encoder of speech, a decoder that attends to it (Chan et al., 2016), and CTC (Kim et al., 2017).

speech -> encoder -> frames -> CTC
<sos>, tokens; frames -> decoder -> phi_i -> logits_i = W phi_i + b -> cross entropy with token i, <eos>
phi_i -> R -> the BERT embedding of token i, with `transfer` (Kubo et al., 2022, equations 1-4)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechkit.config import load_kind
from speechkit.data.batch import Batch, Padded
from speechkit.decoders import DECODERS, Reading
from speechkit.errors import InputError
from speechkit.layers.masks import padding_mask
from speechkit.losses.ctc import ctc_loss
from speechkit.losses.embedding_regression import regression_loss
from speechkit.losses.token_cross_entropy import IGNORE, token_cross_entropy
from speechkit.metrics.look import Look
from speechkit.models import deep_fusion
from speechkit.models.assets import Assets
from speechkit.models.attention_config import Config
from speechkit.models.ctc import CtcModel, build_listener, log_softmax
from speechkit.models.embedding_transfer import Teacher
from speechkit.search.attention_beam import AttentionBeam, AttentionBeamConfig
from speechkit.search.greedy import ctc_greedy
from speechkit.text.tokenizer import Tokenizer

__all__ = ["AttentionModel", "Config", "build"]

Heads = dict[str, tuple[Tensor, Tensor]]


class AttentionModel(CtcModel):
    """An encoder with a decoder that attends to it, and CTC beside it where it has a weight.

    Terms: `attention`, the cross entropy of tokens and <eos>, with label smoothing; `ctc`; `embedding`, with
    `transfer`. All are divided by utterances, or with `normaliser: tokens` by tokens. Watched: `accuracy`,
    the share of tokens and <eos> that the decoder would have said after the true ones.

    Args:
        config: see `Config`.
        encoder: of `speechkit.encoders.ENCODERS`.
        tokenizer: of the targets; its <sos/eos> is what the decoder reads first and says last.
        input_dim: F, None for an encoder of samples.
        cmvn: normalises features, or `nn.Identity()`.
    """

    def __init__(
        self, config: Config, encoder: nn.Module, tokenizer: Tokenizer, input_dim: int | None, cmvn: nn.Module
    ) -> None:
        size = len(tokenizer.vocab)
        super().__init__(config, encoder, size, input_dim, cmvn)
        self.config, self.tokenizer = config, tokenizer
        self.weights, self.outputs = {"attention": config.weights.attention}, ("",)
        if config.weights.ctc:
            self.weights["ctc"], self.outputs = config.weights.ctc, ("", "ctc")
        else:
            self.head = None
        kind = load_kind(DECODERS, config.decoder.name)
        self.decoder = kind.build(config.decoder, size, encoder.output_dim)
        self.regression = None
        if config.transfer is not None and config.transfer.sigma:  # built last: what is above begins alike
            self.weights["embedding"] = config.transfer.sigma
            self.teacher = Teacher(config.transfer, tokenizer)
            self.regression = nn.Linear(self.decoder.output_dim, self.teacher.dim)
        greedy = AttentionBeamConfig(beam=1, ctc_weight=0.0, maxlenratio=config.max_ratio)
        self.greedy = AttentionBeam(greedy, tokenizer.eos, forbidden=(tokenizer.blank, tokenizer.unk))

    # ---- what is minimised ------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, int]:
        """The normaliser of each term: utterances or tokens of the batch."""
        tokens = int(batch["tokens"].lengths.sum())
        said = tokens + len(batch)
        if self.normaliser == "utterances":
            return {**dict.fromkeys(self.weights, len(batch)), "accuracy": said}
        return {**dict.fromkeys(self.weights, said), "accuracy": said} | (
            {"ctc": tokens} if "ctc" in self.weights else {}
        )

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""
        frames, lengths = self.hear(batch)
        tokens, values = batch["tokens"], {}
        phi, targets = self.decode(frames, lengths, tokens)
        values["attention"], values["accuracy"] = self._cross_entropy(phi, targets)
        if self.head is not None:
            log_probs = log_softmax(self.head(self.dropout(frames)))
            values["ctc"] = ctc_loss(log_probs, lengths, tokens.values, tokens.lengths).sum()
        if self.regression is not None:
            predicted, wanted = self.regression(phi[:, :-1]), self.teacher(batch)
            distance = self.config.transfer.distance
            values["embedding"] = regression_loss(
                predicted[:, : wanted.size(1)], wanted, tokens.lengths, distance
            ).sum()
        return {name: (values[name], count) for name, count in self.counts(batch).items()}

    def decode(self, frames: Tensor, lengths: Tensor, tokens: Padded) -> tuple[Tensor, Tensor]:
        """What the decoder knows before each token, having read those before it.

        Args:
            frames: `(B, T, D)` of the encoder.
            lengths: `(B,)`.
            tokens: `(B, U)` targets.

        Returns:
            phi `(B, U + 1, D')`, the vectors that the output layer multiplies, and `(B, U + 1)` what is to be
            said: the tokens and <eos>, `IGNORE` beyond.
        """
        size, eos = tokens.values.size(1), self.tokenizer.eos
        known = tokens.values.masked_fill(padding_mask(tokens.lengths, size), eos)
        targets = F.pad(known, (0, 1), value=eos)
        targets = targets.masked_fill(padding_mask(tokens.lengths + 1, size + 1), IGNORE)
        return self.decoder(F.pad(known, (1, 0), value=eos), frames, lengths), targets

    def _cross_entropy(self, phi: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over all targets, and how many are the most probable."""
        answers = []

        def logits(states: Tensor) -> Tensor:
            values = self.decoder.output(states)
            answers.append(values.detach().argmax(-1))
            return values

        loss = token_cross_entropy(phi, targets, logits, self.config.label_smoothing)
        return loss, (answers[0] == targets[targets != IGNORE]).sum()

    def check_targets(self, ids: Sequence[str], tokens: Sequence[Sequence[int]]) -> None:
        """Raises InputError for utterances whose embeddings cannot be had."""
        if self.regression is not None:
            self.teacher.check(ids, tokens)

    def for_recognition(self) -> tuple[Config, tuple[str, ...]]:
        """The configuration without what only serves the training, and how those weights' names begin."""
        return replace(self.config, transfer=None), ("regression.",)

    # ---- recognition ------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Heads:
        """`frames`, `(B, T, D)` that the decoder attends to; `ctc`, `(B, T, V)`, where there is CTC."""
        frames, lengths = self.hear(batch)
        heads: Heads = {"frames": (frames.to(torch.promote_types(frames.dtype, torch.float32)), lengths)}
        if self.head is not None:
            heads["ctc"] = (log_softmax(self.head(self.dropout(frames))), lengths)
        return heads

    def reading(self, heads: Heads) -> Reading:
        """The decoder, ready to read hypotheses of these utterances token by token."""
        return Reading(self.decoder, *heads["frames"])

    def recognise(self, heads: Heads) -> dict[str, list[str]]:
        """The decoder's greedy text, as `""`, and that of CTC."""
        tokenizer = self.tokenizer
        texts = {"": [tokenizer.decode(tokens) for tokens in self._greedy(heads)]}
        if "ctc" in heads:
            said = ctc_greedy(*heads["ctc"], tokenizer.blank)
            texts["ctc"] = [tokenizer.decode(tokens) for tokens in said]
        return texts

    def _greedy(self, heads: Heads) -> list[list[int]]:
        found = self.greedy([(self.reading(heads), 1.0)], heads["frames"][1])
        return [nbest[0].tokens if nbest else [] for nbest in found]

    def look(self, batch: Batch) -> Look:
        """Where the tokens of the greedy answer listen; a batch of one utterance."""
        heads = self.encode(batch)
        (said,), (frames, lengths) = self._greedy(heads), heads["frames"]
        vocab, eos = self.tokenizer.vocab, self.tokenizer.eos
        look = Look([vocab[token] for token in [*said, eos]], int(lengths))
        read = torch.tensor([[eos, *said]], device=frames.device)
        for name, weights in self.decoder.maps(read, frames, lengths).items():
            look.tokens_read(name, weights)
        return look


def build(config: Config, assets: Assets) -> AttentionModel:
    """The model, with random weights.

    Raises:
        InputError: no tokenizer, or what `speechkit.models.ctc.build` refuses.
    """
    if assets.tokenizer is None:
        raise InputError("model attention: needs a tokenizer; give --tokenizer")
    encoder, cmvn, dim = build_listener(config, assets)
    model = AttentionModel(config, encoder, assets.tokenizer, dim, cmvn)
    return deep_fusion.fuse(model, config, assets)
