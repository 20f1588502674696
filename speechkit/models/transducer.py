"""Transducers (Graves, 2012): an encoder of speech, a network that reads the labels so far, a joint one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from speechkit.config import load_kind
from speechkit.data.batch import Batch
from speechkit.decoders.joint import Joint
from speechkit.decoders.prediction import PREDICTIONS, Memory
from speechkit.errors import InputError
from speechkit.integrations import warp_rnnt
from speechkit.losses.ctc import ctc_loss
from speechkit.losses.embedding_regression import Regression, frame_weights
from speechkit.losses.transducer_lattice import Occupations
from speechkit.metrics.look import Look
from speechkit.models import deep_fusion
from speechkit.models.assets import Assets
from speechkit.models.ctc import CtcModel, build_listener, log_softmax
from speechkit.models.embedding_transfer import Teacher
from speechkit.models.transducer_config import Config
from speechkit.search.transducer_greedy import transducer_greedy
from speechkit.text.tokenizer import Tokenizer

__all__ = ["Config", "TransducerModel", "build"]


class TransducerModel(CtcModel):
    """A transducer; beside it CTC and the regression of a BERT's embeddings, where these have a weight.

    Terms: `transducer`, `ctc`, `embedding` and, of a pruned joint network, `simple`: each is a sum over the
    batch, divided by its utterances. Searches use it as a `speechkit.search.transducer_networks.Networks`.

    Args:
        config: see `Config`.
        encoder: of `speechkit.encoders.ENCODERS`.
        tokenizer: of the labels.
        input_dim: F, None for an encoder of samples.
        cmvn: normalises features, or `nn.Identity()`.
    """

    def __init__(
        self, config: Config, encoder: nn.Module, tokenizer: Tokenizer, input_dim: int | None, cmvn: nn.Module
    ) -> None:
        size = len(tokenizer.vocab)
        super().__init__(config, encoder, size, input_dim, cmvn)
        self.config, self.tokenizer = config, tokenizer
        self.weights = {"transducer": config.weights.transducer}
        if config.weights.ctc:
            self.weights["ctc"] = config.weights.ctc
        else:
            self.head = None
        self.prediction = load_kind(PREDICTIONS, config.prediction.name).build(config.prediction, size)
        dims, lattice = (encoder.output_dim, self.prediction.output_dim), warp_rnnt.choose(config.joint.loss)
        self.joint = Joint(config.joint, *dims, size, lattice)
        if config.joint.pruned is not None:
            self.weights["simple"] = config.weights.simple
        self.regression = None
        if config.transfer is not None and config.transfer.sigma:  # built last: what is above begins alike
            self.weights["embedding"] = config.transfer.sigma
            self.teacher = Teacher(config.transfer, tokenizer)
            dims = dims if config.transfer.inputs == "raw" else (config.joint.dim, config.joint.dim)
            self.regression = Regression(*dims, self.teacher.dim)

    # ---- what is minimised ------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, int]:
        """Utterances, of every term."""
        return dict.fromkeys(self.weights, len(batch))

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum, with its count."""
        frames, lengths = self.hear(batch)
        tokens = batch["tokens"]
        states = self.prediction(tokens.values)
        f, g = self.joint.of_frames(frames), self.joint.of_states(states)
        values, windows = {}, None
        inputs = (f, g, tokens.values, lengths, tokens.lengths)
        if self.joint.pruned is not None:
            guesses, windows = self.joint.guess(*inputs)
            values["simple"] = guesses.sum()
        losses, found = self.joint.loss(*inputs, self.config.fastemit, windows)
        values["transducer"] = losses.sum()
        if self.regression is not None:
            raw = self.config.transfer.inputs == "raw"
            values["embedding"] = self._regress(*((frames, states) if raw else (f, g)), found, batch, lengths)
        if self.head is not None:
            log_probs = log_softmax(self.head(self.dropout(frames)))
            values["ctc"] = ctc_loss(log_probs, lengths, tokens.values, tokens.lengths).sum()
        return {name: (values[name], count) for name, count in self.counts(batch).items()}

    def _regress(
        self, frames: Tensor, states: Tensor, found: Occupations, batch: Batch, lengths: Tensor
    ) -> Tensor:
        """Distances to the embeddings of all tokens, summed."""
        config, sizes = self.config.transfer, batch["tokens"].lengths
        targets, weights = self.teacher(batch), frame_weights(found, config.weighting)
        frames = frames.detach() if config.detach_encoder else frames
        inputs = (frames, states, weights, targets)
        if config.regression == "synchronous":
            return self.regression.synchronous(*inputs, sizes, config.distance).sum()
        return self.regression.joint(*inputs, lengths, sizes, config.distance).sum()

    def check_targets(self, ids: Sequence[str], tokens: Sequence[Sequence[int]]) -> None:
        """Raises InputError for utterances whose embeddings cannot be had."""
        if self.regression is not None:
            self.teacher.check(ids, tokens)

    def for_recognition(self) -> tuple[Config, tuple[str, ...]]:
        """The configuration without what only serves the training, and how those weights' names begin."""
        joint = replace(self.config.joint, pruned=None, loss="auto")
        return replace(self.config, transfer=None, joint=joint), ("regression.", "joint.simple_")

    # ---- recognition ------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """`transducer`: frames `(B, T, J)` projected to the joint network; `ctc`, where there is CTC."""
        frames, lengths = self.hear(batch)
        heads = {"transducer": (self.joint.of_frames(frames), lengths)}
        if self.head is not None:
            heads["ctc"] = (log_softmax(self.head(frames)), lengths)
        return heads

    def recognise(self, heads: dict[str, tuple[Tensor, Tensor]]) -> dict[str, list[str]]:
        """The greedy text of each utterance, as the output `""`."""
        found = transducer_greedy(self, *heads["transducer"], self.config.max_symbols, self.tokenizer.blank)
        return {"": [self.tokenizer.decode(hypothesis.tokens) for hypothesis in found]}

    def look(self, batch: Batch) -> Look:
        """Where the labels of the greedy answer may lie, over all alignments; a batch of one utterance.

        `lattice` is the share of paths that visit a node, in the row of the label that is due there; `q` the
        weights of frames that the regression of each label's embedding sees.
        """
        frames, lengths = self.encode(batch)["transducer"]
        (found,) = transducer_greedy(self, frames, lengths, self.config.max_symbols, self.tokenizer.blank)
        labels = torch.tensor([found.tokens], dtype=torch.int64, device=frames.device).view(1, -1)
        states = self.joint.of_states(self.prediction(labels))
        sizes = lengths, torch.tensor([labels.size(1)], device=frames.device)
        _, lattice = self.joint.loss(frames, states, labels, *sizes)
        look = Look([*(self.tokenizer.vocab[label] for label in found.tokens), "(end)"], int(lengths))
        look.tokens_read("lattice", lattice.node.transpose(1, 2)[:, None])
        weighting = self.config.transfer.weighting if self.config.transfer else "node_norm"
        look.shares["q"] = frame_weights(lattice, weighting)[0].T.cpu()
        return look

    def start(self, count: int) -> tuple[Tensor, Memory]:
        """`(N, J)` states after no label, and memories."""
        states, memory = self.prediction.start(count)
        return self.joint.of_states(states), memory

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """`(N, J)` states after one more label each, `(N,)`, and memories."""
        states, memory = self.prediction.step(tokens, memory)
        return self.joint.of_states(states), memory

    def score(self, frames: Tensor, states: Tensor) -> Tensor:
        """`(..., V)` log-probabilities of what comes next at `(..., J)` frames and states."""
        return self.joint(frames, states)


def build(config: Config, assets: Assets) -> TransducerModel:
    """The model, with random weights.

    Raises:
        InputError: no tokenizer, or what `speechkit.models.ctc.build` refuses.
    """
    if assets.tokenizer is None:
        raise InputError("model transducer: needs a tokenizer; give --tokenizer")
    encoder, cmvn, dim = build_listener(config, assets)
    model = TransducerModel(config, encoder, assets.tokenizer, dim, cmvn)
    return deep_fusion.fuse(model, config, assets)
