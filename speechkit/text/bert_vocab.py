"""The linguistic vocabulary: the pieces of a BERT that a system speaks, with their ids in BERT's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechkit.config import from_dict
from speechkit.errors import BadSample, InputError
from speechkit.files import hash_json, read_json, write_json, write_text
from speechkit.text.normalise import Config as NormaliserConfig
from speechkit.text.normalise import Normaliser
from speechkit.text.spelling import Spelling, learn
from speechkit.text.tokenizer import UNK, Tokenizer
from speechkit.text.wordpiece_cut import (
    CLS,
    MASK,
    PAD,
    SEP,
    UNKNOWN,
    Cutter,
    Keep,
    Rules,
    choose,
    read_folder,
    read_vocab,
)

if TYPE_CHECKING:
    from torch import Tensor

NEEDED = (PAD, UNKNOWN, CLS, SEP, MASK)
"""Tokens without which a BERT cannot read a sentence or be asked about a masked one."""


class BertVocab:
    """Text to linguistic ids and back. Linguistic id 0 is `[UNK]`, the others are in BERT's order.

    Args:
        vocab: all of BERT's tokens in the order of BERT's ids.
        rules: what happens to a text before it is cut.
        tokens: the pieces in use, see `wordpiece_cut.choose`.
        spelling: how pieces become text.
        normaliser: applied to every text first; that of the CTC units.

    Attributes:
        bert_ids: for each linguistic id the id in BERT's own vocabulary.
        tokens: for each linguistic id the piece.
        unk: 0.
        cls_id, sep_id, mask_id, pad_id: in BERT's own ids.

    Raises:
        InputError: BERT lacks a special token or one of the pieces.
    """

    def __init__(
        self,
        vocab: Sequence[str],
        rules: Rules,
        tokens: Sequence[str],
        spelling: Spelling | None = None,
        normaliser: Normaliser | None = None,
    ) -> None:
        position = {token: id_ for id_, token in enumerate(vocab)}
        gone = [token for token in (*NEEDED, *tokens) if token not in position]
        if gone:
            raise InputError(f"BERT's vocabulary of {len(position)} tokens has no '{gone[0]}'")
        if not tokens:
            raise InputError("the linguistic vocabulary is empty: no text has a piece that BERT knows")
        self.vocab, self.rules = list(vocab), rules
        self.spelling, self.normaliser = spelling or Spelling(), normaliser or Normaliser()
        self.tokens = [UNKNOWN, *sorted(set(tokens), key=position.__getitem__)]
        self.bert_ids = [position[token] for token in self.tokens]
        self.unk = 0
        self.pad_id, self.cls_id, self.sep_id, self.mask_id = (position[t] for t in (PAD, CLS, SEP, MASK))
        self._ids = {token: id_ for id_, token in enumerate(self.tokens)}
        self._cutter = Cutter(vocab, rules, self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def split(self, text: str) -> list[str]:
        """The normalised text's pieces, also those that are not in use."""
        return self._cutter.split(self.normaliser(text))

    def encode(self, text: str) -> list[int]:
        """Linguistic ids of a text (normalised here), without [CLS] and [SEP]; 0 for what is not in use."""
        return [self._ids.get(piece, self.unk) for piece in self.split(text)]

    def encode_utterance(self, utterance: str, text: str, positions: int | None = None) -> list[int]:
        """Like `encode`; raises BadSample for a text that BERT cannot read.

        Args:
            utterance: its id, for the message.
            text: the transcript.
            positions: of BERT, [CLS] and [SEP] included; None does not look at the length.
        """
        ids = self.encode(text)
        if not any(ids):
            about = f"'{text[:60]}'; see speechkit bert-fit"
            raise BadSample(utterance, "no piece in BERT's vocabulary", about)
        if positions is not None and len(ids) > positions - 2:
            raise BadSample(
                utterance,
                "longer than BERT",
                f"{len(ids)} pieces, and BERT has {positions} positions, 2 of them for [CLS] and [SEP]; "
                "split the utterance",
            )
        return ids

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id; InputError for an id outside the vocabulary."""
        wrong = [id_ for id_ in ids if not 0 <= id_ < len(self.tokens)]
        if wrong:
            raise InputError(f"id {wrong[0]} is outside the linguistic vocabulary (0 to {len(self) - 1})")
        return [self.tokens[id_] for id_ in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some linguistic ids; `[UNK]` stands as `<unk>`, as in CTC's text."""
        return self.spelling.join([UNK if piece == UNKNOWN else piece for piece in self.pieces(ids)])

    def whole_words(self) -> list[str]:
        """Words that are one piece, as texts write them."""
        written = [(id_, self.decode([id_])) for id_ in range(1, len(self)) if self.tokens[id_][:2] != "##"]
        return [word for id_, word in written if self.encode(word) == [id_]]

    def lookup(self, device: Any = None) -> Tensor:
        """`(V',)` int64: BERT's id of each linguistic id."""
        import torch

        return torch.tensor(self.bert_ids, dtype=torch.int64, device=device)

    def inverse(self, device: Any = None) -> Tensor:
        """`(V,)` int64: the linguistic id of each of BERT's ids, 0 for those that are not in use."""
        import torch

        table = torch.zeros(len(self.vocab), dtype=torch.int64, device=device)
        return table.index_copy(0, self.lookup(device), torch.arange(len(self), device=device))

    # ---- making and keeping ---------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        folder: str | Path,
        texts: Sequence[str],
        keep: Keep = "pruned",
        normaliser: Normaliser | None = None,
        strip_accents: bool | None = None,
    ) -> BertVocab:
        """The vocabulary of a BERT for some training text.

        Args:
            folder: Hugging Face folder, or a vocab.txt.
            texts: training text, a sentence each; normalised here.
            keep: "pruned" for the pieces of the text, "full" for all.
            normaliser: that of the CTC units.
            strip_accents: None does as the folder says, and keeps accents where it says nothing.

        Raises:
            InputError: no vocabulary, a broken one, not WordPiece's, or no text that it knows.
        """
        vocab, rules = read_folder(folder, strip_accents, NEEDED)
        return cls.of(vocab, rules, texts, keep, normaliser)

    @classmethod
    def of(
        cls,
        vocab: Sequence[str],
        rules: Rules,
        texts: Sequence[str],
        keep: Keep = "pruned",
        normaliser: Normaliser | None = None,
    ) -> BertVocab:
        """Like `build`, from tokens that are known already."""
        normaliser = normaliser or Normaliser()
        texts = [normaliser(text) for text in texts]
        spelling = learn(texts, Cutter(vocab, rules).words, rules.lower_case)
        return cls(vocab, rules, choose(vocab, rules, texts, keep), spelling, normaliser)

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> BertVocab:
        """The linguistic vocabulary that a "wordpiece" tokenizer speaks: same pieces, same spelling.

        Raises:
            InputError: a tokenizer of another kind.
        """
        if tokenizer.kind != "wordpiece":
            raise InputError(f"units shared with BERT need a wordpiece tokenizer, not {tokenizer.kind}")
        units = tokenizer.units
        if units.specials != "none":
            raise InputError(
                "units shared with BERT are its pieces alone, and this tokenizer has [CLS] or [SEP] too; "
                "make one without --specials"
            )
        return cls(units.vocab, units.rules, tokenizer.vocab[2:-1], units.spelling, tokenizer.normaliser)

    def shared_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The linguistic id of each CTC id, -1 for the blank and `<sos/eos>`; one to one, onto.

        Raises:
            InputError: the tokenizer's pieces are not these.
        """
        if tokenizer.kind != "wordpiece" or sorted(tokenizer.vocab[2:-1]) != sorted(self.tokens[1:]):
            raise InputError(
                f"the {tokenizer.kind} tokenizer's {len(tokenizer)} tokens are not the {len(self)} pieces of "
                "the linguistic vocabulary; build both from the same BERT, text and choice of pieces"
            )
        return [-1, self.unk, *(self._ids[token] for token in tokenizer.vocab[2:-1]), -1]

    @property
    def hash(self) -> str:
        """Equal for equal ids and texts."""
        return hash_json([self.vocab, self._record()])

    def _record(self) -> dict[str, Any]:
        return {
            "rules": dataclasses.asdict(self.rules),
            "bert_ids": self.bert_ids,
            "vocab_hash": hash_json(self.vocab),
            "spelling": self.spelling.record(),
            "normaliser": dataclasses.asdict(self.normaliser.config),
        }

    def save(self, folder: Path) -> None:
        """Writes vocab.txt, as BERT's own folder has it, and bert_vocab.json into an existing folder."""
        write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in self.vocab))
        write_json(folder / "bert_vocab.json", self._record())

    @classmethod
    def load(cls, folder: Path) -> BertVocab:
        """Reads what `save` wrote.

        Raises:
            InputError: missing, broken, or a vocab.txt of another BERT.
        """
        file = folder / "bert_vocab.json"
        vocab, record = read_vocab(folder / "vocab.txt", NEEDED), read_json(file)
        if not isinstance(record, dict) or record.get("vocab_hash") != hash_json(vocab):
            raise InputError(f"{file}: maps its ids to another vocabulary than the vocab.txt beside it")
        try:
            tokens = [vocab[id_] for id_ in record["bert_ids"][1:]]
            rules, spelling = Rules(**record["rules"]), Spelling(**record["spelling"])
            normaliser = Normaliser(from_dict(NormaliserConfig, record["normaliser"]))
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"{file}: damaged ({error})") from None
        return cls(vocab, rules, tokens, spelling, normaliser)
