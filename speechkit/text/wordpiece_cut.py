"""How BERT cuts text (Devlin et al., 2019): cleaning, words, and the longest pieces from left to right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from speechkit.errors import InputError
from speechkit.files import read_json
from speechkit.text.reading import read_utf8

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]")
"""Tokens that stand for no text."""

Keep = Literal["pruned", "full"]
"""Which pieces of a BERT a system speaks: those of the training text, or all."""


@dataclass(frozen=True)
class Rules:
    """What happens to a text before it is cut.

    Attributes:
        lower_case: letters become small (uncased models).
        strip_accents: marks above and below letters are lost, in Vietnamese the tones, in Tamil the vowels.
        chinese: every Chinese character is a word.
    """

    lower_case: bool = False
    strip_accents: bool = False
    chinese: bool = True


class Cutter:
    """Cuts text into the pieces of a BERT.

    Args:
        vocab: BERT's tokens in the order of BERT's ids.
        rules: what happens before.
        kept: the pieces in use; a word with others is cut again into these where they can spell it. None
            for all.
    """

    def __init__(self, vocab: Sequence[str], rules: Rules, kept: Iterable[str] | None = None) -> None:
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        self.rules = rules
        self._clean = BertNormalizer(
            clean_text=True,
            handle_chinese_chars=rules.chinese,
            strip_accents=rules.strip_accents,
            lowercase=rules.lower_case,
        )
        self._separate = BertPreTokenizer()
        ids = {token: id_ for id_, token in enumerate(vocab)}
        self._kept = None if kept is None else {*kept, UNKNOWN}
        self._models = [WordPiece(ids, unk_token=UNKNOWN)]
        if self._kept is not None:
            few = {token: id_ for token, id_ in ids.items() if token in self._kept}
            self._models.append(WordPiece(few, unk_token=UNKNOWN))
        self._cut: dict[str, list[str]] = {}

    def words(self, text: str) -> list[str]:
        """BERT's words of a text: punctuation marks and Chinese characters are words of their own."""
        return [word for word, _ in self._separate.pre_tokenize_str(self._clean.normalize_str(text))]

    def pieces(self, word: str) -> list[str]:
        """The pieces of one of BERT's words; one `[UNK]` when BERT cannot spell it."""
        if word not in self._cut:
            self._cut[word] = self._pieces(word)
        return self._cut[word]

    def _pieces(self, word: str) -> list[str]:
        pieces, *again = ([token.value for token in model.tokenize(word)] for model in self._models)
        if self._kept is None or self._kept.issuperset(pieces) or again == [[UNKNOWN]]:
            return pieces
        return again[0]

    def split(self, text: str) -> list[str]:
        """The pieces of a text."""
        return [piece for word in self.words(text) for piece in self.pieces(word)]


def choose(vocab: Sequence[str], rules: Rules, texts: Iterable[str], keep: Keep) -> list[str]:
    """The pieces that a system speaks, in BERT's order: without special, unused and blank ones."""
    usable = [token for token in vocab if not SPECIAL.fullmatch(token) and token.split() == [token]]
    if keep == "full":
        return usable
    cutter = Cutter(vocab, rules)
    seen = {piece for text in texts for piece in cutter.split(text)}
    return [token for token in usable if token in seen]


# ---- files ----------------------------------------------------------------------------------------------


def read_vocab(path: str | Path, needed: Sequence[str] = (PAD, UNKNOWN, SEP)) -> list[str]:
    """Reads a vocab.txt: a token a line, the line's number less one is BERT's id.

    Args:
        path: the file.
        needed: tokens that must be there.

    Raises:
        InputError: missing, empty, not UTF-8, an empty line, a token listed twice, or one of `needed` is
            not there.
    """
    vocab = [line.removesuffix("\r") for line in read_utf8(path).removesuffix("\n").split("\n")]
    seen: dict[str, int] = {}
    for number, token in enumerate(vocab, start=1):
        if not token or token in seen:
            raise InputError(f"{path}:{number}: token '{token}' is empty or listed before")
        seen[token] = number
    return _complete(vocab, path, needed)


def _complete(vocab: list[str], path: str | Path, needed: Sequence[str]) -> list[str]:
    for token in needed:
        if token not in vocab:
            name = Path(path).name
            raise InputError(f"{path}: no {token}; is this the {name} of a BERT with WordPiece tokens?")
    return vocab


def read_folder(
    path: str | Path, strip_accents: bool | None = None, needed: Sequence[str] = (PAD, UNKNOWN, SEP)
) -> tuple[list[str], Rules]:
    """BERT's tokens and rules.

    Args:
        path: vocab.txt, or a Hugging Face folder with vocab.txt or a tokenizer.json of WordPiece.
        strip_accents: None does as the folder says, and keeps accents where it says nothing.
        needed: tokens that must be there.

    Raises:
        InputError: no vocabulary, a broken one, or tokens that are not WordPiece's.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    fast = _fast_tokenizer(folder / "tokenizer.json")
    if path.is_dir() and not (path / "vocab.txt").exists() and fast:
        vocab = _fast_vocab(fast, folder / "tokenizer.json", needed)
    else:
        vocab = read_vocab(path / "vocab.txt" if path.is_dir() else path, needed)
    said = _said(folder / "tokenizer_config.json", fast)
    lower = all(token == token.lower() for token in vocab if not SPECIAL.fullmatch(token))
    rules = Rules(
        said.get("do_lower_case", lower),
        said.get("strip_accents", False) if strip_accents is None else strip_accents,
        said.get("tokenize_chinese_chars", True),
    )
    return vocab, rules


def _fast_tokenizer(path: Path) -> dict[str, Any]:
    """The content of a tokenizer.json; empty when there is none."""
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _fast_vocab(value: dict[str, Any], path: Path, needed: Sequence[str]) -> list[str]:
    model = value.get("model") if isinstance(value.get("model"), dict) else {}
    if model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        kind = model.get("type", "unknown")
        raise InputError(f"{path}: {kind} tokens; only BERTs with WordPiece tokens can be used")
    named = {id_: token for token, id_ in model["vocab"].items()}
    if not all(type(id_) is int for id_ in named) or sorted(named) != list(range(len(model["vocab"]))):
        raise InputError(f"{path}: ids must be 0 to {len(model['vocab']) - 1}, each once")
    return _complete([named[id_] for id_ in range(len(named))], path, needed)


def _said(config: Path, fast: dict[str, Any]) -> dict[str, bool]:
    """The rules that a folder states: tokenizer_config.json's before tokenizer.json's."""
    inside = fast.get("normalizer") if isinstance(fast.get("normalizer"), dict) else {}
    said = {
        "do_lower_case": inside.get("lowercase"),
        "strip_accents": inside.get("strip_accents"),
        "tokenize_chinese_chars": inside.get("handle_chinese_chars"),
    }
    stated = read_json(config) if config.is_file() else {}
    if not isinstance(stated, dict):
        raise InputError(f"{config}: not a table of settings")
    said.update({key: stated[key] for key in said if isinstance(stated.get(key), bool)})
    return {key: value for key, value in said.items() if isinstance(value, bool)}
