"""Systems: one a file, each composing a front end, an encoder and heads; no new layers here."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from speechkit.data.batch import Batch

MODELS = {
    "adapter_bert": "speechkit.models.adapter_bert",
    "attention": "speechkit.models.attention",
    "av_bert": "speechkit.models.av_bert",
    "causal_lm": "speechkit.models.causal_lm",
    "cif_bert": "speechkit.models.cif_bert",
    "ctc": "speechkit.models.ctc",
    "embedding_replacement": "speechkit.models.embedding_replacement",
    "hubert": "speechkit.models.hubert",
    "masked_lm": "speechkit.models.masked_lm",
    "unispeech": "speechkit.models.unispeech",
    "transducer": "speechkit.models.transducer",
    "wavbert": "speechkit.models.wavbert",
    "wav2vec2": "speechkit.models.wav2vec2_pretraining",
}
"""Kind name -> module with a `Config` dataclass and `build(config, assets) -> Model`.

A kind whose `Config` has a section `bert` (`speechkit.encoders.bert.Config`) finds that BERT in
`assets.bert`, and its model keeps it as `bert`; its module may have `bert_assets(config, texts, tokenizer)`
to make the assets in a way of its own.
"""


class Model(Protocol):
    """What the training loop and the decoder need of a system (besides being an `nn.Module`)."""

    requires: tuple[str, ...]
    """Names of the batch fields that `loss` reads; none for a model that learns from text alone."""

    inputs: tuple[str, ...]
    """Names of the batch fields that `encode` reads: a subset of `requires`."""

    weights: dict[str, float]
    """Weight of each loss term; terms absent here are logged, under their bare name, and not trained on."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """The normaliser of each loss term of this batch, known before any forward pass."""

    def loss(self, batch: Batch, update: int) -> dict[str, tuple[Tensor, int]]:
        """Each term as a sum and its normaliser; `update` counts from 0."""

    def encode(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Each head's values, `(B, T, V)` log-probabilities for "ctc", and lengths `(B,)`."""

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames that the first head emits for inputs of these lengths (unit of `inputs[0]`)."""

    def set_update(self, update: int) -> None:
        """Brings every schedule and freezing to the given update."""

    # Optional: `know_labels({field: labels})`: frame labels of the training set, one after the other.
    # Optional: `text_requires: tuple[str, ...]`: fields of the batches of text sets, which hold nothing else
    # (such as "bert_tokens"); `counts` and `loss` then give the terms that such a batch has.
    # Optional: `longest_text: int`: most word pieces ("bert_tokens") of an utterance that is trained on.
    # Optional: `look(batch) -> speechkit.metrics.look.Look`: what happened in a batch of one utterance.
    # Optional: `outputs: tuple[str, ...]` and `recognise(heads) -> {output: texts}`: what validation scores
    # of a system with several outputs; that of the empty name, which is first, is the system's.
    # Optional: `for_recognition() -> (config, prefixes)`: the configuration of the model that recognises, and
    # how the names of weights begin that it does not have, because they only serve the training.
    # Optional: `check_targets(ids, tokens)`: InputError, before training, for utterances with targets (token
    # ids of each) that something beside speech is learnt from and that is missing.
    # Optional: `copy_bert()`, called when pre-trained weights were put into `bert`, for copies of its parts.
    # Optional: `derive(values) -> {name: value}`: further dev values, from the mean terms of the dev set.
    # Optional: `advise(row: dict[str, float]) -> str | None`. Called with each training row that is logged;
    # plain words about what looks wrong in it and what to do, which the loop prints.
