"""Transducers (Graves, 2012): an encoder of speech, a network that reads the labels so far, and a joint one."""

from __future__ import annotations

from torch import Tensor, nn

from speechkit.config import load_kind
from speechkit.data.batch import Batch
from speechkit.decoders.joint import Joint
from speechkit.decoders.prediction import PREDICTIONS, Memory
from speechkit.errors import InputError
from speechkit.losses.ctc import ctc_loss
from speechkit.losses.transducer_lattice import Occupations
from speechkit.models.assets import Assets
from speechkit.models.ctc import CtcModel, check_options, log_softmax
from speechkit.models.inputs import build_encoder
from speechkit.models.transducer_config import Config
from speechkit.search.transducer_greedy import transducer_greedy
from speechkit.text.tokenizer import Tokenizer

__all__ = ["Config", "TransducerModel", "build"]


class TransducerModel(CtcModel):
    """A transducer, with CTC beside it where that has a weight.

    Terms: `transducer` and `ctc`, each a sum over the batch, divided by its utterances. Searches use it as a
    `speechkit.search.transducer_networks.Networks`.

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
        self.joint = Joint(config.joint, encoder.output_dim, self.prediction.output_dim, size)

    # ---- what is minimised ------------------------------------------------------------------------------

    def counts(self, batch: Batch) -> dict[str, int]:
        """Utterances, of every term."""
        return dict.fromkeys(self.weights, len(batch))

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum, with its count."""
        frames, lengths = self.hear(batch)
        tokens = batch["tokens"]
        states = self.prediction(tokens.values)
        losses, _ = self.transduce(frames, lengths, states, batch)
        values = {"transducer": losses.sum()}
        if self.head is not None:
            log_probs = log_softmax(self.head(self.dropout(frames)))
            values["ctc"] = ctc_loss(log_probs, lengths, tokens.values, tokens.lengths).sum()
        return {name: (values[name], count) for name, count in self.counts(batch).items()}

    def transduce(
        self, frames: Tensor, lengths: Tensor, states: Tensor, batch: Batch
    ) -> tuple[Tensor, Occupations]:
        """`(B,)` losses and the occupations of the lattices.

        Args:
            frames: `(B, T, D)` of the encoder.
            lengths: `(B,)`.
            states: `(B, U + 1, D')` of the prediction network.
            batch: with `tokens`.
        """
        tokens = batch["tokens"]
        fastemit = self.config.fastemit
        return self.joint.loss(frames, states, tokens.values, lengths, tokens.lengths, fastemit)

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
    encoder, cmvn, dim = build_encoder(config.encoder, config.input_dim, assets)
    check_options(config, encoder)
    return TransducerModel(config, encoder, assets.tokenizer, dim, cmvn)
