"""Vocabularies of foreign CTC heads, and their rows in the order of a SpeechKit tokenizer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.files import read_json
from speechkit.text.char import SPACE, CharUnits
from speechkit.text.normalise import Config, Normaliser
from speechkit.text.reading import read_utf8
from speechkit.text.tokenizer import Tokenizer
from speechkit.text.word import WordUnits

NEVER = -1e4
"""Bias of a row that the foreign head does not have: its probability is 0 in every precision."""

FAIRSEQ_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""First rows of every fairseq dictionary; `<s>` is the blank of its CTC models."""

_PADDING = re.compile(r"madeupword\d{4}")


@dataclass
class Vocabulary:
    """The rows of a CTC head.

    Attributes:
        source: the file, for messages.
        tokens: of every row.
        blank: the token that stands for no output.
        unk: the token for unknown characters, or None.
        eos: the token for the end of a sentence, or None.
        space: the token between words, or None.
        unused: further tokens that CTC never emits.
    """

    source: str
    tokens: list[str]
    blank: str
    unk: str | None = None
    eos: str | None = None
    space: str | None = None
    unused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if len(set(self.tokens)) < len(self.tokens):
            twice = next(t for i, t in enumerate(self.tokens) if t in self.tokens[:i])
            raise InputError(f"{self.source}: token '{twice}' is listed twice")
        if self.blank not in self.tokens:
            raise InputError(f"{self.source}: no token '{self.blank}', which the blank should be")


def convert_head(
    weight: Tensor, bias: Tensor, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor, Tokenizer, list[str]]:
    """A head's rows in the order blank, unknown, pieces, end of sentence.

    Args:
        weight: `(V, D)`.
        bias: `(V,)`.
        vocabulary: of the V rows.

    Returns:
        Weight and bias of the tokenizer's rows, the tokenizer, and lines about what changed.

    Raises:
        InputError: the vocabulary has not V tokens, or some cannot be SpeechKit's.
    """
    if len(vocabulary.tokens) != len(weight):
        raise InputError(
            f"{vocabulary.source}: {len(vocabulary.tokens)} tokens, but the CTC head has {len(weight)} rows; "
            "this is the vocabulary of another model"
        )
    row = {token: index for index, token in enumerate(vocabulary.tokens)}
    special = {vocabulary.blank, vocabulary.unk, vocabulary.eos, *vocabulary.unused}
    names = [token for token in vocabulary.tokens if token not in special]
    tokenizer = tokenizer_of(names, vocabulary)
    order = [row.get(token) for token in (vocabulary.blank, vocabulary.unk, *names, vocabulary.eos)]
    kept = torch.tensor([index for index in order if index is not None])
    made = torch.tensor([index is None for index in order])
    new_weight, new_bias = weight.new_zeros(len(order), weight.shape[1]), bias.new_full((len(order),), NEVER)
    new_weight[~made], new_bias[~made] = weight[kept], bias[kept]
    left = [token for token in vocabulary.tokens if row[token] not in order]
    lines = [f"head: {len(weight)} rows into {len(order)}, the blank '{vocabulary.blank}' first"]
    lines += [f"head: rows left out, which CTC never emits: {', '.join(left)}"] if left else []
    absent = [name for name, index in zip(("<unk>", "<sos/eos>"), (order[1], order[-1])) if index is None]
    lines += [f"head: rows added, of probability 0: {', '.join(absent)}"] if absent else []
    return new_weight, new_bias, tokenizer, lines


def tokenizer_of(names: list[str], vocabulary: Vocabulary, characters: bool | None = None) -> Tokenizer:
    """A tokenizer for the tokens that are no special ones.

    Args:
        names: of the tokens, in their order.
        vocabulary: that they are from.
        characters: whether tokens are characters, or words (phones, for instance); None: characters where
            every token is one.

    Raises:
        InputError: a name that no token can have.
    """
    if characters is None:
        characters = all(len(name) == 1 or name == vocabulary.space for name in names)
    pieces = [SPACE if characters and name == vocabulary.space else name for name in names]
    try:
        if characters:
            return Tokenizer("char", CharUnits(), pieces, normaliser_of(pieces))
        return Tokenizer("word", WordUnits(), pieces, normaliser_of(pieces))
    except InputError as error:
        raise InputError(f"{vocabulary.source}: {error}") from None


def normaliser_of(pieces: list[str]) -> Normaliser:
    """One that leaves the tokens as they are."""
    return Normaliser(Config(form=_form(pieces), case=_case(pieces)))


def _case(pieces: Iterable[str]) -> str:
    """The case of all letters that have one."""
    cased = [piece for piece in pieces if piece.lower() != piece.upper()]
    if not cased or not all(len(piece) == 1 for piece in cased):
        return "keep"
    if all(piece == piece.upper() for piece in cased):
        return "upper"
    return "lower" if all(piece == piece.lower() for piece in cased) else "keep"


def _form(pieces: list[str]) -> str:
    """The first Unicode form that leaves the tokens as they are."""
    for form in ("NFC", "NFD"):
        if all(unicodedata.normalize(form, piece) == piece for piece in pieces):
            return form
    return "none"


# ---- files ----------------------------------------------------------------------------------------------


def read_fairseq(path: str | Path) -> Vocabulary:
    """Reads fairseq's `dict.ltr.txt`: lines `token count`, without the four special rows.

    Raises:
        InputError: names the line that is wrong.
    """
    tokens = []
    for number, line in enumerate(read_utf8(path).removesuffix("\n").split("\n"), start=1):
        line = line.removesuffix("\r").removesuffix(" #fairseq:overwrite")
        token, space, count = line.rpartition(" ")
        if not space or not token or not count.isdecimal():
            raise InputError(f"{path}:{number}: expected `token count`, got '{line}'")
        tokens.append(token)
    return fairseq_vocabulary(str(path), tokens)


def fairseq_vocabulary(source: str, tokens: list[str]) -> Vocabulary:
    """The vocabulary of a fairseq dictionary's own tokens."""
    tokens = [*FAIRSEQ_SPECIAL, *(token for token in tokens if token not in FAIRSEQ_SPECIAL)]
    unused = {"<pad>", *filter(_PADDING.fullmatch, tokens)}
    return Vocabulary(source, tokens, "<s>", "<unk>", "</s>", "|", unused)


def numbered_phones(source: str, rows: int) -> Vocabulary:
    """A vocabulary for UniSpeech's phone head: so many rows, the special ones last, the blank `<s>`."""
    tokens = [*(f"p{i}" for i in range(rows - len(FAIRSEQ_SPECIAL))), *FAIRSEQ_SPECIAL]
    return Vocabulary(source, tokens, "<s>", "<unk>", "</s>", unused={"<pad>"})


def read_labels(path: str | Path) -> Vocabulary:
    """Reads `labels.txt`: a token a line in the order of the rows, the blank first, `|` between words."""
    tokens = read_utf8(path).removesuffix("\n").split("\n")
    return Vocabulary(str(path), tokens, tokens[0], _one(tokens, "<unk>"), _one(tokens, "</s>"), "|")


def _one(tokens: list[str], name: str) -> str | None:
    return name if name in tokens else None


def read_huggingface(folder: Path, blank_id: int, rows: int) -> Vocabulary:
    """Reads `vocab.json`, `added_tokens.json` and the names of special tokens.

    Args:
        folder: the model's.
        blank_id: `pad_token_id` of the model's config.json, which is the blank of its CTC.
        rows: of the head; tokens that the tokenizer added beyond them are left out.

    Raises:
        InputError: missing, of several languages, with gaps, or naming another blank than the model.
    """
    path = folder / "vocab.json"
    ids = read_json(path)
    if not isinstance(ids, dict) or any(isinstance(part, dict) for part in ids.values()):
        raise InputError(f"{path}: vocabularies of several languages are not supported; give one")
    added = folder / "added_tokens.json"
    if len(ids) != rows and added.exists():
        ids.update(read_json(added))
    named = {index: token for token, index in ids.items()}
    if not all(type(index) is int for index in named) or sorted(named) != list(range(len(ids))):
        raise InputError(f"{path}: ids must be 0 to {len(ids) - 1}, each once")
    names = _special_names(folder)
    if names["pad_token"] not in ids or ids[names["pad_token"]] != blank_id:
        raise InputError(
            f"{path}: '{names['pad_token']}' has the id {ids.get(names['pad_token'])}, but pad_token_id in "
            f"config.json, the blank, is {blank_id}; mend the one that is wrong"
        )
    tokens = [named[index] for index in range(len(ids))]
    known = {key: _one(tokens, name) for key, name in names.items()}
    unused = {known["bos_token"]} - {None, known["eos_token"]}
    return Vocabulary(
        str(path),
        tokens,
        names["pad_token"],
        known["unk_token"],
        known["eos_token"],
        known["word_delimiter_token"],
        unused,
    )


_DEFAULTS = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "word_delimiter_token": "|",
}
"""Special tokens of transformers' Wav2Vec2CTCTokenizer."""


def _special_names(folder: Path) -> dict[str, str]:
    names = dict(_DEFAULTS)
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        given: dict[str, Any] = read_json(folder / file) if (folder / file).exists() else {}
        for key in names:
            value = given.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            names[key] = value if isinstance(value, str) else names[key]
    return names
