"""BERTs of Hugging Face: a folder, or a name that is in transformers' cache. Nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from speechkit.encoders import bert
from speechkit.encoders.bert import Bert, BertAssets
from speechkit.errors import InputError
from speechkit.files import read_json
from speechkit.integrations.foreign import Account, take_weights
from speechkit.integrations.huggingface import read_tensors
from speechkit.lm import bert_embeddings
from speechkit.lm.bert_embeddings import Embedder
from speechkit.text.bert_vocab import NEEDED, BertVocab
from speechkit.text.normalise import Normaliser
from speechkit.text.wordpiece_cut import Rules, read_folder

FIELDS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "tie_word_embeddings",
)
"""What of config.json makes the model; the rest is about the file."""

REQUIRED = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}
"""Options with one supported value, which is also their default."""

SPARE_ROWS = 1000
"""Most rows of the word table without a token: some models round their number up."""

HEAD = "cls.predictions"
TIES = {
    f"{HEAD}.decoder.weight": "bert.embeddings.word_embeddings.weight",
    f"{HEAD}.decoder.bias": f"{HEAD}.bias",
}
"""Names of one tensor unless config.json unties them; older files have both, newer ones the second."""

MAY_BE_MISSING = {f"{HEAD}.*": "the checkpoint has no masked-language-model head, so this one is new"}
MAY_BE_UNEXPECTED = {
    "bert.pooler.*": "for whole sentences",
    "cls.seq_relationship.*": "for pairs of sentences",
    "bert.embeddings.position_ids": "a counter",
    "bert.embeddings.token_type_ids": "zeros",
    "classifier.*": "a head of another task",
    "qa_outputs.*": "a head of another task",
}
_OLD = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}
_BARE = ("embeddings.", "encoder.", "pooler.")


@dataclass
class Checkpoint:
    """A BERT on the disk.

    Attributes:
        folder: with config.json, weights and the tokenizer's files.
        config: the fields of config.json that make the model.
        vocab: all tokens, in the order of their ids.
        rules: what happens to a text before it is cut.
    """

    folder: Path
    config: dict[str, Any]
    vocab: list[str]
    rules: Rules

    @property
    def positions(self) -> int:
        """Most tokens of a sequence, [CLS] and [SEP] included."""
        return self.config.get("max_position_embeddings", 512)


def locate(name: str | Path) -> Path:
    """The folder of a BERT.

    Args:
        name: a folder, or a name on Hugging Face's hub such as `bert-base-chinese`.

    Raises:
        InputError: no such folder, and not in the cache.
    """
    if str(name) and Path(name).is_dir():
        return Path(name)
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name)):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(name), local_files_only=True))
        except (OSError, ValueError):  # not there, or no name
            pass
    raise InputError(
        f"{name}: neither a folder nor a model in transformers' cache; if Hugging Face's hub has it, fetch "
        f"it once with `hf download {name}`"
    )


def open_bert(name: str | Path, strip_accents: bool | None = None) -> Checkpoint:
    """Reads what a BERT is, without its weights.

    Args:
        name: see `locate`.
        strip_accents: None does as the folder says, and keeps accents where it says nothing.

    Raises:
        InputError: no BERT, one with an option that is not supported, without WordPiece tokens, or whose
            tokens are not those of its weights.
    """
    folder = locate(name)
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "bert":
        raise InputError(f"{path}: model_type '{kind}'; only BERTs (model_type 'bert') can be used")
    for option, value in REQUIRED.items():
        if config.get(option, value) != value:
            raise InputError(f"{path}: {option}={config[option]!r} is not supported, only {value!r}")
    if not any((folder / file).exists() for file in ("vocab.txt", "tokenizer.json")):
        raise InputError(f"{folder}: no vocab.txt and no tokenizer.json; copy BERT's vocab.txt here")
    vocab, rules = read_folder(folder, strip_accents, NEEDED)
    checkpoint = Checkpoint(folder, {key: config[key] for key in FIELDS if key in config}, vocab, rules)
    rows, pad = config.get("vocab_size", 30522), config.get("pad_token_id", 0)
    if not len(vocab) <= rows <= len(vocab) + SPARE_ROWS:
        raise InputError(
            f"{folder}: {len(vocab)} tokens, but config.json says vocab_size={rows}: the vocabulary of "
            "another checkpoint"
        )
    if pad is not None and vocab.index("[PAD]") != pad:
        raise InputError(
            f"{folder}: [PAD] is token {vocab.index('[PAD]')}, but config.json says pad_token_id={pad}: the "
            "vocabulary of another checkpoint"
        )
    return checkpoint


def make_assets(
    config: bert.Config, texts: Sequence[str], normaliser: Normaliser | None = None
) -> BertAssets:
    """Architecture and linguistic vocabulary for some training text.

    Args:
        config: names the BERT and the choice of pieces.
        texts: training text, a sentence each; normalised here.
        normaliser: that of the CTC units.

    Raises:
        InputError: see `open_bert`; or no BERT is named.
    """
    if config.folder is None:
        raise InputError("bert.folder: name a Hugging Face folder of a BERT, or a model of its hub")
    found = open_bert(config.folder, config.strip_accents)
    vocab = BertVocab.of(found.vocab, found.rules, texts, config.vocab, normaliser)
    return BertAssets(found.config, vocab)


def load_pretrained(model: Bert, vocab: BertVocab, name: str | Path, allow_new_head: bool = False) -> Account:
    """Puts the weights of a checkpoint into a BERT.

    Args:
        model: built from `make_assets`; changed in place.
        vocab: of its assets.
        name: see `locate`.
        allow_new_head: a checkpoint without a masked-language-model head will do; the model's stays as it is.

    Returns:
        What became of every weight.

    Raises:
        InputError: another vocabulary or architecture; no head where one is needed; a weight missing,
            unexpected or of another shape and on no list of this file; a damaged file, or one that would
            run code.
    """
    found = open_bert(name)
    if found.vocab != vocab.vocab:
        raise InputError(
            f"{found.folder}: its {len(found.vocab)} tokens are not the {len(vocab.vocab)} that the system "
            "was made for; take the BERT that it was made from"
        )
    weights = {_renamed(key): value for key, value in read_tensors(found.folder).items()}
    own = model.model.state_dict()
    notes = _untie(weights, own)
    state, account = take_weights(
        {key: own[key] for key in own if key not in notes},
        weights,
        (),
        f"{found.folder}: BERT",
        may_miss=MAY_BE_MISSING,
        may_have=MAY_BE_UNEXPECTED,
        heads=(HEAD,),
    )
    if account.missing and not allow_new_head:
        raise InputError(
            f"{found.folder}: has no masked-language-model head ({HEAD}); take a checkpoint that has one, or "
            "say model.bert.allow_new_head=true to begin with a head that knows nothing"
        )
    account.notes += [note for note in notes.values() if note]
    model.model.load_state_dict({**state, **{name: state[TIES[name]] for name in notes}})
    return account


def _renamed(name: str) -> str:
    """transformers' present name: of `BertForMaskedLM`, with `bert.` before the encoder's."""
    for old, new in _OLD.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return f"bert.{name}" if name.startswith(_BARE) else name


def _untie(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, str]:
    """Leaves one name of each tensor in `weights`; returns the other names, each with what is to be said."""
    notes = {}
    for name, source in TIES.items():
        if own[name].data_ptr() != own[source].data_ptr():
            continue
        second, notes[name] = weights.pop(name, None), ""
        if second is None:
            continue
        first = weights.setdefault(source, second)
        if first is not second and (first.shape != second.shape or not first.equal(second)):
            notes[name] = f"{name} is another tensor in the file; {source} is taken, as config.json ties them"
    return notes


def load_bert(name: str | Path) -> tuple[Bert, BertVocab]:
    """A BERT to score texts with: all of its pieces, its weights, in eval mode.

    Args:
        name: see `locate`. A folder with a bert_vocab.json keeps its choice of pieces.

    Raises:
        InputError: see `open_bert` and `load_pretrained`; or no masked-language-model head.
    """
    folder = locate(name)
    if (folder / "bert_vocab.json").exists():
        assets = BertAssets(open_bert(folder).config, BertVocab.load(folder))
    else:
        assets = make_assets(bert.Config(folder=str(folder), vocab="full"), ())
    model = bert.build(bert.Config(), assets)
    account = load_pretrained(model, assets.vocab, folder, allow_new_head=True)
    if account.missing:
        raise InputError(
            f"{folder}: has no masked-language-model head, so it cannot say how probable a word is; take a "
            "checkpoint that has one"
        )
    return model.eval(), assets.vocab


def open_embedder(name: str | Path, config: bert_embeddings.Config, vocab: Sequence[str]) -> Embedder:
    """A BERT that embeds the tokens of sentences; it needs no masked-language-model head.

    Args:
        name: see `locate`.
        config: which embeddings.
        vocab: the tokens that it must have, in order.

    Raises:
        InputError: see `open_bert` and `load_pretrained`; other tokens; a block that it does not have.
    """
    assets = make_assets(bert.Config(folder=str(name), vocab="full"), ())
    if list(assets.vocab.vocab) != list(vocab):
        raise InputError(
            f"{name}: its {len(assets.vocab.vocab)} tokens are not the {len(vocab)} that the tokenizer was "
            "made from; take that BERT"
        )
    model = bert.build(bert.Config(), assets)
    load_pretrained(model, assets.vocab, name, allow_new_head=True)
    try:
        return Embedder(model, assets.vocab, config)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
