"""What a recogniser learns from a BERT while it is trained: the embeddings of the tokens of its targets.

Kubo et al. (2022). The regression network is left out of what is decoded with; BERT never is part of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speechkit.config import check_range
from speechkit.data.batch import Batch
from speechkit.data.tables import shown
from speechkit.errors import InputError
from speechkit.lm.bert_embeddings import Config as EmbeddingConfig
from speechkit.lm.bert_embeddings import Embedder
from speechkit.lm.embedding_store import EmbeddingStore
from speechkit.losses.embedding_regression import Distance, Weighting
from speechkit.text.tokenizer import Tokenizer


@dataclass
class Config:
    """Knowledge transfer; one of `bert` and `store` says where embeddings are from."""

    sigma: float = 0.01
    """Weight of the regression beside recognition; 0 builds nothing of it."""

    bert: str | None = None
    """BERT's folder, or a hub name in transformers' cache: embeddings are made when needed and remembered."""

    store: str | None = None
    """Folder that `speechkit bert-embed` made."""

    layers: list[int] = field(default_factory=lambda: [-1])
    """With `bert`: blocks whose outputs are averaged; -1 is the last one."""

    regression: Literal["synchronous", "joint"] = "synchronous"
    """Transducers: `synchronous` regresses once a token, from its average frame (equation 9); `joint` once a
    token and frame (equation 7)."""

    weighting: Weighting = "node_norm"
    """Transducers: how much each frame counts for a token, see `speechkit.losses.embedding_regression`."""

    distance: Distance = "l1"
    """Between a prediction and its target."""

    normalise: Literal["none", "layernorm", "standardise"] = "none"
    """Targets as they are; each with mean 0 and variance 1; or each dimension so (which needs a store)."""

    inputs: Literal["raw", "projected"] = "raw"
    """Transducers: frames and states as they leave their networks, or projected to the joint network."""

    detach_encoder: bool = False
    """Let the regression teach the decoder alone."""

    def __post_init__(self) -> None:
        check_range("sigma", self.sigma, 0)
        EmbeddingConfig(self.layers)
        if self.sigma and (self.bert is None) == (self.store is None):
            raise ValueError("one of bert and store must say where embeddings are from")
        if self.normalise == "standardise" and self.store is None:
            raise ValueError("normalise=standardise needs a store, which knows means and deviations")


class Teacher:
    """Gives the embeddings of targets; no part of a model, and opened on first use.

    Args:
        config: see `Config`.
        tokenizer: of the targets: BERT's word pieces.

    Raises:
        InputError: targets that are no word pieces of a BERT.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        if tokenizer.kind != "wordpiece":
            raise InputError(
                f"model.transfer: needs BERT's word pieces as tokens, not {tokenizer.kind}; make the "
                "tokenizer with `speechkit tokenizer --kind wordpiece --vocab BERT`"
            )
        self.config, self.units, self.table = config, tokenizer.units, np.array(tokenizer.units.bert_ids)
        self.around = len(self.units.before), len(self.units.after)
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        self._embedder: Embedder | None = None
        self._store: EmbeddingStore | None = None

    @property
    def dim(self) -> int:
        """E; opens the store, or reads what the BERT is."""
        if self.config.store is not None:
            return self._opened().dim
        from speechkit.integrations.bert import open_bert

        return int(open_bert(self.config.bert).config["hidden_size"])

    def __call__(self, batch: Batch) -> Tensor:
        """`(B, U, E)` fp32 on the batch's device, zeros beyond a target.

        Raises:
            InputError: a target that the store does not have, or that BERT cannot read, by its utterance.
        """
        if self.config.store is not None:
            self._opened()
        tokens = batch["tokens"]
        rows = [
            tuple(self.table[row[:size]].tolist())
            for row, size in zip(tokens.values.cpu().numpy(), tokens.lengths.tolist())
        ]
        found = self._stored(batch, rows) if self.config.store is not None else self._made(rows)
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(np.array(row)) for row in found], True)
        targets = padded.to(tokens.values.device).float()
        if self.config.normalise == "layernorm":
            targets = F.layer_norm(targets, targets.shape[-1:])
        elif self.config.normalise == "standardise":
            mean, std = (targets.new_tensor(self._opened().record[name]) for name in ("mean", "std"))
            targets = (targets - mean) / std.clamp(min=1e-6)
        return targets

    def check(self, ids: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Looks for the embeddings of all targets, before any training.

        Args:
            ids: of utterances.
            rows: our token ids of each.

        Raises:
            InputError: targets that the store does not have, or that BERT cannot read whole, by utterance.
        """
        config, around = self.config, sum(self.around)
        if config.store is not None:
            store = self._opened()
            bad = [
                u for u, row in zip(ids, rows) if self._words(self.table[np.asarray(row, int)]) not in store
            ]
            wrong = (
                f"{config.store} has no embeddings of their texts, which may have changed; make them again, "
                "of training and dev texts, with speechkit bert-embed"
            )
        else:
            from speechkit.integrations.bert import open_bert

            room = open_bert(config.bert).positions - 2
            bad = [u for u, row in zip(ids, rows) if len(row) - around > room]
            wrong = f"more word pieces than the {room} that the BERT has room for; split them"
        if bad:
            raise InputError(
                f"model.transfer: {len(bad)} of {len(ids)} utterances ({shown(', '.join(bad))}): {wrong}"
            )

    def _words(self, row: Sequence[int]) -> Sequence[int]:
        """Without [CLS] and [SEP]."""
        before, after = self.around
        return row[before : len(row) - after]

    def _made(self, rows: list[tuple[int, ...]]) -> list[np.ndarray]:
        new = [row for row in dict.fromkeys(rows) if row not in self._known]
        if new:
            embedder = self._open_bert()
            for row, values in zip(new, embedder.of_ids([self._words(row) for row in new])):
                self._known[row] = values.half().numpy()
        return [self._known[row] for row in rows]

    def _stored(self, batch: Batch, rows: list[tuple[int, ...]]) -> list[np.ndarray]:
        store, found = self._opened(), []
        for utterance, row in zip(batch.ids, rows):
            try:
                found.append(store.get(self._words(row)))
            except KeyError:
                raise InputError(
                    f"utterance {utterance}: {self.config.store} has no embeddings of its text, which may "
                    "have changed; make them again with speechkit bert-embed"
                ) from None
        return found

    def _opened(self) -> EmbeddingStore:
        if self._store is None:
            self._store = EmbeddingStore(self.config.store)
            have, wanted = self._store.record["specials"], self.units.specials
            if have != wanted:
                raise InputError(
                    f"{self.config.store}: made with --specials {have}, and the tokenizer has {wanted}; make "
                    "one of the two again"
                )
        return self._store

    def _open_bert(self) -> Embedder:
        if self._embedder is None:
            from speechkit.integrations.bert import open_embedder

            self._embedder = open_embedder(
                self.config.bert, EmbeddingConfig(self.config.layers, self.units.specials), self.units.vocab
            )
        return self._embedder
