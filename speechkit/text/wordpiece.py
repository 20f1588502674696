"""BERT's WordPiece, so that what is recognised are the tokens a BERT was trained on.

The vocabulary is BERT's without its special and unused tokens, in BERT's order: all of it, or the pieces of
the training text. [CLS] and [SEP] may stand around every text, as BERT reads it; they are tokens then (Kubo
et al., 2022, recognise them). The position of every token in BERT's own vocabulary is kept (`bert_ids`):
`<blank>` is `[PAD]` there (which BERT never reads), `<unk>` is `[UNK]` and `<sos/eos>` is `[SEP]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from speechkit.errors import InputError
from speechkit.files import hash_json, write_text
from speechkit.text.spelling import Spelling, learn
from speechkit.text.tokenizer import Options
from speechkit.text.wordpiece_cut import (
    CLS,
    PAD,
    SEP,
    UNKNOWN,
    Cutter,
    Rules,
    choose,
    read_folder,
    read_vocab,
)

Specials = Literal["none", "sep_only", "both"]
"""What stands around the tokens of a text: nothing, [SEP] at the end, or [CLS] before and [SEP] after it."""
AROUND: dict[str, tuple[list[str], list[str]]] = {
    "none": ([], []),
    "sep_only": ([], [SEP]),
    "both": ([CLS], [SEP]),
}


class WordPieceUnits:
    """A token a word piece; pieces inside a word start with `##`.

    Args:
        vocab: BERT's tokens in the order of BERT's ids.
        rules: what happens to a text before it is cut.
        tokens: the pieces in use, in BERT's order.
        spelling: how pieces become text.
        specials: what stands around them; these tokens come after the pieces.

    Attributes:
        bert_ids: for each of our ids the id in BERT's vocabulary.
    """

    def __init__(
        self,
        vocab: list[str],
        rules: Rules,
        tokens: list[str],
        spelling: Spelling,
        specials: Specials = "none",
    ) -> None:
        self.vocab, self.rules, self.spelling, self.specials = vocab, rules, spelling, specials
        self.before, self.after = AROUND[specials]
        position = {token: id_ for id_, token in enumerate(vocab)}
        kept = [position[token] for token in (*tokens, *self.before, *self.after)]
        self.bert_ids = [position[PAD], position[UNKNOWN], *kept, position[SEP]]
        self._cutter = Cutter(vocab, rules, tokens)

    def split(self, text: str) -> list[str]:
        """The pieces of a normalised text; a word BERT cannot spell is one `[UNK]`."""
        return [*self.before, *self._cutter.split(text), *self.after]

    def join(self, pieces: Sequence[str]) -> str:
        """Words of the pieces, with spaces and case as the training text has them; no [CLS] and [SEP]."""
        around = {*self.before, *self.after}
        return self.spelling.join([piece for piece in pieces if piece not in around])

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes vocab.txt as BERT's own folder has it."""
        write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in self.vocab))
        return {
            "rules": dataclasses.asdict(self.rules),
            "bert_ids": self.bert_ids,
            "vocab_hash": hash_json(self.vocab),
            "spelling": self.spelling.record(),
            "specials": self.specials,
        }


def build(kind: str, texts: Sequence[str], options: Options) -> tuple[WordPieceUnits, list[str]]:
    """Takes a vocab.txt or a BERT folder; uncased when the folder or the tokens say so."""
    if options.vocab is None:
        raise InputError("--kind wordpiece needs --vocab (BERT's vocab.txt or its folder)")
    vocab, rules = read_folder(options.vocab, options.strip_accents)
    tokens = choose(vocab, rules, texts, options.pieces)
    spelling = learn(texts, Cutter(vocab, rules).words, rules.lower_case)
    units = WordPieceUnits(vocab, rules, tokens, spelling, options.specials)
    return units, [*tokens, *units.before, *units.after]


def load(kind: str, folder: Path, values: dict[str, Any]) -> WordPieceUnits:
    """Reads vocab.txt; InputError when it is not the one the id mapping was stored for."""
    path = folder / "vocab.txt"
    vocab, ids = read_vocab(path), values.get("bert_ids")
    if "rules" in values:
        ours = values.get("vocab_hash") == hash_json(vocab)
        rules, spelling = Rules(**values["rules"]), Spelling(**values["spelling"])
    else:  # all pieces, as tokenizers were saved before there was a choice
        lower = bool(values.get("lower_case"))
        rules, spelling = Rules(lower, strip_accents=lower), Spelling(chinese=False)
        position = {token: id_ for id_, token in enumerate(vocab)}
        kept = [position[token] for token in choose(vocab, rules, (), "full")]
        ours = ids == [position[PAD], position[UNKNOWN], *kept, position[SEP]]
    if not ours or not isinstance(ids, list):
        raise InputError(f"{path}: not the vocabulary that tokenizer.json maps its ids to")
    specials = values.get("specials", "none")
    around = sum(map(len, AROUND[specials]))
    tokens = [vocab[id_] for id_ in ids[2 : len(ids) - 1 - around]]
    return WordPieceUnits(vocab, rules, tokens, spelling, specials)
