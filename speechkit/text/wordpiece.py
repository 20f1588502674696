"""BERT's WordPiece, so that what is recognised are the tokens a BERT was trained on.

The vocabulary is BERT's without its special and unused tokens, in BERT's order. The position of every
token in BERT's own vocabulary is kept (`bert_ids`): `<blank>` is `[PAD]` there (which BERT never
reads), `<unk>` is `[UNK]` and `<sos/eos>` is `[SEP]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.text.reading import read_utf8
from speechkit.text.tokenizer import Options

PAD, UNKNOWN, SEP = "[PAD]", "[UNK]", "[SEP]"
_SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]")
# BERT cuts words at punctuation and does not say that it did; these marks mostly stand inside a word.
_INSIDE = re.compile(r"(?<=\w) (['’-]) (?=\w)")


class WordPieceUnits:
    """A token a word piece; pieces inside a word start with `##`.

    Args:
        vocab: BERT's tokens in the order of BERT's ids.
        lower_case: BERT's `do_lower_case` (uncased models).

    Attributes:
        bert_ids: for each of our ids the id in BERT's vocabulary.
    """

    def __init__(self, vocab: list[str], lower_case: bool) -> None:
        from transformers import BertTokenizerFast

        self.vocab, self.lower_case = vocab, lower_case
        position = {token: id_ for id_, token in enumerate(vocab)}
        self.tokenizer = BertTokenizerFast(vocab=position, do_lower_case=lower_case)
        kept = [position[token] for token in self.tokens()]
        self.bert_ids = [position[PAD], position[UNKNOWN], *kept, position[SEP]]

    def tokens(self) -> list[str]:
        """BERT's tokens in its order, without the special and unused ones."""
        return [token for token in self.vocab if not _SPECIAL.fullmatch(token)]

    def split(self, text: str) -> list[str]:
        """The pieces of a normalised text; a word BERT cannot spell is one `[UNK]`."""
        # Each word on its own, so that a text that reads "[SEP]" is punctuation and letters.
        return self.tokenizer.tokenize(text, split_special_tokens=True)

    def join(self, pieces: Sequence[str]) -> str:
        """Words of the pieces; apostrophes and hyphens that BERT cut off are put back inside words."""
        text = "".join(piece[2:] if piece.startswith("##") else f" {piece}" for piece in pieces)
        return _INSIDE.sub(r"\1", text.strip(" ").removeprefix("##"))

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes vocab.txt as BERT's own folder has it."""
        write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in self.vocab))
        return {"lower_case": self.lower_case, "bert_ids": self.bert_ids}


def read_vocab(path: str | Path) -> list[str]:
    """Reads a vocab.txt: a token a line, the line's number less one is BERT's id.

    Raises:
        InputError: missing, empty, not UTF-8, a token listed twice, or no [PAD], [UNK] or [SEP].
    """
    vocab = read_utf8(path).removesuffix("\n").split("\n")
    seen: dict[str, int] = {}
    for number, token in enumerate(vocab, start=1):
        if not token.strip() or token in seen:
            raise InputError(f"{path}:{number}: token '{token}' is empty or listed before")
        seen[token] = number
    for token in (PAD, UNKNOWN, SEP):
        if token not in seen:
            raise InputError(f"{path}: no {token}; is this the vocab.txt of a BERT with WordPiece tokens?")
    return vocab


def build(kind: str, texts: Sequence[str], options: Options) -> tuple[WordPieceUnits, list[str]]:
    """Takes a vocab.txt or a BERT folder; uncased when the folder or the tokens say so."""
    if options.vocab is None:
        raise InputError("--kind wordpiece needs --vocab (BERT's vocab.txt or its folder)")
    folder = options.vocab if options.vocab.is_dir() else options.vocab.parent
    vocab = read_vocab(folder / "vocab.txt" if options.vocab.is_dir() else options.vocab)
    units = WordPieceUnits(vocab, _lower_case(folder / "tokenizer_config.json", vocab))
    return units, units.tokens()


def _lower_case(config: Path, vocab: list[str]) -> bool:
    if config.is_file():
        try:
            declared = json.loads(config.read_text(encoding="utf-8")).get("do_lower_case")
        except ValueError as error:
            raise InputError(f"{config}: not JSON: {error}") from None
        if isinstance(declared, bool):
            return declared
    return all(token == token.lower() for token in vocab if not _SPECIAL.fullmatch(token))


def load(kind: str, folder: Path, values: dict[str, Any]) -> WordPieceUnits:
    """Reads vocab.txt; InputError when it is not the one the id mapping was stored for."""
    units = WordPieceUnits(read_vocab(folder / "vocab.txt"), bool(values.get("lower_case")))
    if units.bert_ids != values.get("bert_ids"):
        raise InputError(f"{folder / 'vocab.txt'}: not the vocabulary that tokenizer.json maps its ids to")
    return units
