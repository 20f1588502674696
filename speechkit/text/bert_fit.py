"""How well a BERT's vocabulary fits a text, before anything is trained on the two."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from speechkit.errors import InputError
from speechkit.text.bert_vocab import BertVocab
from speechkit.text.coverage import SHOWN, character_lines
from speechkit.text.normalise import Normaliser
from speechkit.text.tokenizer import UNK
from speechkit.text.wordpiece_cut import UNKNOWN, Cutter, Rules, choose


@dataclass
class Fit:
    """What a BERT makes of some texts.

    Attributes:
        texts: how many there are.
        words: how many words, between spaces, they have.
        pieces: how many pieces.
        unknown: count of each of BERT's words that is `[UNK]`.
        characters: count of each character that keeps a word from being spelt.
        first: the first text with such a word or character.
        long: texts with more pieces than BERT has positions for -> pieces.
        changed: texts that do not come back from their pieces -> what comes back.
        used: different pieces in the texts.
        usable: pieces that BERT has for text.
        rules: what happened to the texts before they were cut.
        accents: texts with accents.
        other: the fit with the other treatment of accents, where texts have any.
        merged: different words that only accents tell from another.
    """

    rules: Rules
    texts: int = 0
    words: int = 0
    pieces: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    long: dict[str, int] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    used: int = 0
    usable: int = 0
    accents: int = 0
    other: Fit | None = None
    merged: int = 0

    @property
    def unknown_share(self) -> float:
        """Part of the pieces that is `[UNK]`."""
        return sum(self.unknown.values()) / max(self.pieces, 1)

    @property
    def pieces_per_word(self) -> float:
        """Pieces for each word between spaces."""
        return self.pieces / max(self.words, 1)


def measure(
    vocab: Sequence[str],
    rules: Rules,
    texts: Mapping[str, str],
    positions: int,
    normaliser: Normaliser | None = None,
) -> Fit:
    """Reads every text with a BERT's vocabulary.

    Args:
        vocab: BERT's tokens in the order of its ids.
        rules: what happens to a text before it is cut.
        texts: name -> text, not normalised yet.
        positions: most tokens that BERT reads, [CLS] and [SEP] included.
        normaliser: that of the CTC units.

    Raises:
        InputError: BERT lacks a special token.
    """
    normaliser = normaliser or Normaliser()
    written = {name: normaliser(text) for name, text in texts.items()}
    fit = _cut(vocab, rules, written, positions)
    bare = {word: _bare(word) for text in written.values() for word in text.split()}
    fit.accents = sum(len(_bare(text)) != len(_decomposed(text)) for text in written.values())
    if fit.accents:
        other = dataclasses.replace(rules, strip_accents=not rules.strip_accents)
        fit.other = _cut(vocab, other, written, positions)
        counts = Counter(bare.values())
        fit.merged = sum(counts[plain] > 1 for plain in bare.values())
    if fit.used:
        linguistic = BertVocab.of(vocab, rules, list(written.values()), "pruned")
        back = {name: linguistic.decode(linguistic.encode(text)) for name, text in written.items()}
        fit.changed = {name: text for name, text in back.items() if text != written[name] and UNK not in text}
    return fit


def _cut(vocab: Sequence[str], rules: Rules, written: Mapping[str, str], positions: int) -> Fit:
    """Everything that one treatment of accents decides."""
    cutter, fit, known = Cutter(vocab, rules), Fit(rules, len(written)), set(vocab)
    used: set[str] = set()
    for name, text in written.items():
        count = 0
        for word in cutter.words(text):
            pieces = cutter.pieces(word)
            count += len(pieces)
            if pieces != [UNKNOWN]:
                used.update(pieces)
                continue
            fit.unknown[word] += 1
            outside = [
                letter
                for place, letter in enumerate(word)
                if (f"##{letter}" if place else letter) not in known
            ]
            fit.characters.update(outside)
            for item in (word, *outside):
                fit.first.setdefault(item, name)
        fit.words += len(text.split())
        fit.pieces += count
        if count > positions - 2:
            fit.long[name] = count
    fit.used, fit.usable = len(used), len(choose(vocab, rules, (), "full"))
    return fit


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def _bare(text: str) -> str:
    """The text without accents, as BERT loses them."""
    return "".join(letter for letter in _decomposed(text) if unicodedata.category(letter) != "Mn")


def check(fit: Fit, limit: float, source: str) -> None:
    """Raises InputError, with the characters, when more than `limit` of the pieces are `[UNK]`."""
    if fit.unknown_share <= limit:
        return
    most = sorted(fit.characters.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    letters = " ".join(f"{letter} (U+{ord(letter):04X}, {count})" for letter, count in most)
    cause = f"it lacks {letters}" if letters else f"such as '{next(iter(fit.unknown))}'"
    raise InputError(
        f"{source}: {100 * fit.unknown_share:.1f} % of the pieces are [UNK], more than {100 * limit:g} %: "
        f"{cause}; take a BERT of this language or script, or normalise the text as it was for this BERT"
    )


def lines(source: str, fit: Fit, positions: int) -> list[str]:
    """The report, for people."""
    unknown = sum(fit.unknown.values())
    report = [
        f"{source}: {fit.texts} texts, {fit.words} words, {fit.pieces} pieces: "
        f"{fit.pieces_per_word:.2f} pieces per word",
        f"  [UNK]: {unknown} ({100 * fit.unknown_share:.2f} % of the pieces)",
        f"  vocabulary: {fit.used} of {fit.usable} pieces are used "
        f"({100 * fit.used / max(fit.usable, 1):.1f} %)",
        f"  {'uncased: letters are made small' if fit.rules.lower_case else 'cased'}",
        f"  {_accents(fit)}",
        f"  longer than {positions} positions: {len(fit.long)} texts{_some(fit.long)}",
        f"  do not come back from their pieces: {len(fit.changed)} texts{_some(fit.changed)}",
    ]
    report += [f"  {name}: comes back as '{fit.changed[name][:60]}'" for name in list(fit.changed)[:2]]
    report += character_lines(fit.characters, fit.first)
    if fit.unknown:
        report.append(f"  the most frequent of {len(fit.unknown)} words that are [UNK]")
        most = sorted(fit.unknown.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
        report += [f"  {word}  {count}  {fit.first[word]}" for word, count in most]
    return report


def _accents(fit: Fit) -> str:
    treated = "lost" if fit.rules.strip_accents else "kept"
    if fit.other is None:
        return f"accents: {treated}; the texts have none"
    otherwise = "kept" if fit.rules.strip_accents else "lost"
    return (
        f"accents: {treated}; {fit.accents} texts have some. If they were {otherwise}: "
        f"{100 * fit.other.unknown_share:.2f} % [UNK], {fit.other.pieces_per_word:.2f} pieces per word; "
        f"{fit.merged} different words differ in accents alone"
    )


def _some(names: Mapping[str, object]) -> str:
    shown = ", ".join(list(names)[:5])
    return f": {shown}{' ...' if len(names) > 5 else ''}" if names else ""
