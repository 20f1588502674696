"""Text to token ids and back: one class for all kinds, which differ in how they cut text into pieces."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from speechkit.config import from_dict
from speechkit.errors import BadSample, InputError, nearest
from speechkit.files import atomic_folder, read_json, write_json, write_text
from speechkit.text.normalise import Config as NormaliserConfig
from speechkit.text.normalise import Normaliser
from speechkit.text.reading import read_utf8

BLANK, UNK, EOS = "<blank>", "<unk>", "<sos/eos>"

TOKENIZERS = {
    "char": "speechkit.text.char",
    "word": "speechkit.text.word",
    "phone": "speechkit.text.phone",
    "bpe": "speechkit.text.subword",
    "unigram": "speechkit.text.subword",
    "wordpiece": "speechkit.text.wordpiece",
}
"""Kind -> module with `build(kind, texts, options) -> (Units, tokens)` and `load(kind, folder, values)`."""

UNITS = {kind: "pieces" for kind in TOKENIZERS} | {"char": "characters", "word": "words", "phone": "phones"}
"""Kind -> what reports call its tokens."""


@dataclass
class Options:
    """What building a tokenizer may need; each kind reads its own and refuses what it misses."""

    size: int | None = None
    """Tokens of a bpe or unigram vocabulary, the three special ones included."""
    min_count: int = 1
    """Words seen less often are left out of a word vocabulary."""
    words: Path | None = None
    """Word list (first column) that replaces the words of the text."""
    lexicon: Path | None = None
    """`word phone phone ...` lines: text is words, tokens are phones."""
    vocab: Path | None = None
    """BERT's vocab.txt, or a BERT folder."""
    pieces: Literal["pruned", "full"] = "pruned"
    """wordpiece: only the pieces of the text, or all of BERT's."""
    strip_accents: bool | None = None
    """wordpiece: lose accents; None does as the BERT folder says, and keeps them where it says nothing."""
    specials: Literal["none", "sep_only", "both"] = "none"
    """wordpiece: which of [CLS] and [SEP] stand around every text and are tokens."""
    model: Path | None = None
    """A sentencepiece model to take over instead of training one."""
    byte_fallback: bool = False
    """bpe and unigram: spell unknown characters as UTF-8 bytes."""


class Units(Protocol):
    """How one kind cuts normalised text into pieces."""

    def split(self, text: str) -> list[str]:
        """Pieces of a normalised text; those outside the vocabulary become `<unk>`."""

    def join(self, pieces: Sequence[str]) -> str:
        """The text of some pieces."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the kind's own files, returns its JSON-able settings."""


class Tokenizer:
    """Text to ids and back.

    Args:
        kind: a name of `TOKENIZERS`.
        units: how the kind cuts and joins text.
        tokens: the pieces, without the special tokens, in the order of their ids.
        normaliser: applied to every text before it is cut.

    Attributes:
        vocab: token of every id: `<blank>`, `<unk>`, the pieces, `<sos/eos>`.
        blank: 0.
        unk: 1.
        eos: the last id.

    Raises:
        InputError: a piece is listed twice, is a special token, is empty or has white space in it.
    """

    def __init__(self, kind: str, units: Units, tokens: Sequence[str], normaliser: Normaliser) -> None:
        self.kind, self.units, self.normaliser = kind, units, normaliser
        self.vocab = [BLANK, UNK, *tokens, EOS]
        self.blank, self.unk, self.eos = 0, 1, len(self.vocab) - 1
        self._ids = {token: id_ for id_, token in enumerate(tokens, start=2)}
        _check_tokens(tokens)

    def __len__(self) -> int:
        return len(self.vocab)

    def __contains__(self, piece: str) -> bool:
        return piece in self._ids

    def pieces(self, text: str) -> list[str]:
        """The normalised text's pieces, also those outside the vocabulary."""
        return self.units.split(self.normaliser(text))

    def encode(self, text: str) -> list[int]:
        """Ids of a text (normalised here); `unk` where a piece is not in the vocabulary."""
        return [self._ids.get(piece, self.unk) for piece in self.pieces(text)]

    def encode_utterance(self, utterance: str, text: str) -> list[int]:
        """Like `encode`; raises BadSample when the text has no token in the vocabulary."""
        ids = self.encode(text)
        if not self.decode([id_ for id_ in ids if id_ != self.unk]):
            about = f"'{text[:60]}' against {len(self)} {self.kind} tokens"
            raise BadSample(
                utterance, "no token in the vocabulary", f"{about}; check case, script, normaliser"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some ids; blanks and `<sos/eos>` are left out, unknown tokens stand as `<unk>`.

        Raises:
            InputError: an id outside the vocabulary.
        """
        for id_ in ids:
            if not 0 <= id_ <= self.eos:
                raise InputError(f"token id {id_} is outside the vocabulary (0 to {self.eos})")
        return self.units.join([self.vocab[id_] for id_ in ids if id_ not in (self.blank, self.eos)])

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokens.txt and the kind's own files, all or nothing."""
        with atomic_folder(folder) as temporary:
            values = self.units.save(temporary)
            lines = "".join(f"{token} {id_}\n" for id_, token in enumerate(self.vocab))
            write_text(temporary / "tokens.txt", lines)
            record = {
                "kind": self.kind,
                "tokens": len(self),
                "normaliser": dataclasses.asdict(self.normaliser.config),
                "normaliser_hash": self.normaliser.hash,
                "units": values,
            }
            write_json(temporary / "tokenizer.json", record)


def _check_tokens(tokens: Sequence[str]) -> None:
    if not tokens:
        raise InputError("the vocabulary is empty: the text has no token")
    seen = {BLANK, UNK, EOS}
    for token in tokens:
        if token in seen:
            raise InputError(f"token '{token}' is listed twice, or is a special token")
        if token.split() != [token]:
            raise InputError(f"token {token!r} is empty or has white space in it")
        seen.add(token)


def build_tokenizer(
    kind: str, texts: Sequence[str], normaliser: Normaliser | None = None, **options: Any
) -> Tokenizer:
    """Makes a tokenizer from text.

    Args:
        kind: a name of `TOKENIZERS`.
        texts: training text, a sentence each; normalised here.
        normaliser: by default NFC and white space only.
        options: see `Options`.

    Raises:
        InputError: unknown kind, no text, or an option that is missing or does not fit.
    """
    if kind not in TOKENIZERS:
        raise InputError(f"no tokenizer kind '{kind}'{nearest(kind, list(TOKENIZERS))}")
    normaliser = normaliser or Normaliser()
    if kind == "phone" and options.get("lexicon") is None and normaliser.config.punctuation == "remove":
        raise InputError("phones are symbols, and punctuation=remove would break (en)p; leave it out")
    module = importlib.import_module(TOKENIZERS[kind])
    units, tokens = module.build(kind, [normaliser(text) for text in texts], Options(**options))
    return Tokenizer(kind, units, tokens, normaliser)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Reads a tokenizer folder.

    Raises:
        InputError: a file is missing or broken, naming it (and the line).
    """
    folder = Path(folder)
    file = folder / "tokenizer.json"
    record = read_json(file)
    if not isinstance(record, dict) or record.get("kind") not in TOKENIZERS:
        raise InputError(f"{file}: not a tokenizer (its kind must be one of {', '.join(TOKENIZERS)})")
    kind = record["kind"]
    normaliser = Normaliser(from_dict(NormaliserConfig, record.get("normaliser", {})))
    if record.get("normaliser_hash") != normaliser.hash:
        raise InputError(f"{file}: its normaliser does not have the hash it was saved with; build it again")
    units = importlib.import_module(TOKENIZERS[kind]).load(kind, folder, record.get("units", {}))
    return Tokenizer(kind, units, _read_tokens(folder / "tokens.txt"), normaliser)


def _read_tokens(file: Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; the tokenizer folder is not complete")
    vocab = []
    for number, line in enumerate(read_utf8(file).rstrip("\n").split("\n"), start=1):
        token, space, id_ = line.rpartition(" ")
        if not space or id_ != str(number - 1):
            raise InputError(f"{file}:{number}: expected `token {number - 1}`, got '{line}'")
        vocab.append(token)
    if vocab[:2] != [BLANK, UNK] or vocab[-1] != EOS:
        raise InputError(f"{file}: must start with {BLANK} and {UNK} and end with {EOS}")
    return vocab[2:-1]
