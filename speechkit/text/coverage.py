"""What of a text a tokenizer cannot write: characters, pieces, and texts that do not come back."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from speechkit.text.tokenizer import Tokenizer

SHOWN = 20


@dataclass
class Coverage:
    """What a file's texts look like to a tokenizer.

    Attributes:
        utterances: how many texts were read.
        pieces: how many pieces they have.
        characters: count of each character outside the vocabulary's alphabet.
        unknown: count of each piece that becomes `<unk>`.
        first: the first utterance with such a character or piece.
        empty: utterances with no token in the vocabulary.
        changed: utterances whose text does not come back from its ids.
    """

    utterances: int = 0
    pieces: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def cover(tokenizer: Tokenizer, texts: dict[str, str]) -> Coverage:
    """Reads every text with a tokenizer.

    Args:
        tokenizer: of any kind; for phones of a lexicon `changed` is always empty, as there is no way back.
        texts: utterance -> text, not normalised yet.
    """
    found = Coverage()
    alphabet = set().union(*map(set, tokenizer.vocab[2:-1]))
    one_way = tokenizer.kind == "phone" and getattr(tokenizer.units, "lexicon", None) is not None
    for utterance, text in texts.items():
        pieces = tokenizer.pieces(text)
        unknown = Counter(piece for piece in pieces if piece not in tokenizer)
        written = tokenizer.normaliser(text)
        found.utterances += 1
        found.pieces += len(pieces)
        found.unknown += unknown
        # BERT writes a word it cannot spell as [UNK], so its characters are looked up in the text.
        outside = Counter(c for c in written if c != " " and c not in alphabet) if unknown else Counter()
        found.characters += outside
        for item in (*unknown, *outside):
            found.first.setdefault(item, utterance)
        if len(pieces) == sum(unknown.values()):
            found.empty.append(utterance)
        if not one_way and tokenizer.decode(tokenizer.encode(text)) != written:
            found.changed.append(utterance)
    return found


def script(character: str) -> str:
    """Script of a letter, mark or digit, as its Unicode name starts ("LATIN", "DEVANAGARI"), else COMMON."""
    if unicodedata.category(character)[0] not in "LMN":
        return "COMMON"
    first = unicodedata.name(character, "unnamed").split(" ")[0].split("-")[0]
    return {"COMBINING": "INHERITED", "DIGIT": "COMMON"}.get(first, first)


def lines(name: str, tokenizer: Tokenizer, found: Coverage) -> list[str]:
    """The report on one file, for people."""
    unknown = sum(found.unknown.values())
    share = 100 * unknown / max(found.pieces, 1)
    report = [f"{name}: {found.utterances} texts, {found.pieces} tokens, {unknown} unknown ({share:.2f} %)"]
    report += character_lines(found.characters, found.first)
    words = {piece: count for piece, count in found.unknown.items() if len(piece) > 1}
    if words and tokenizer.kind in ("word", "phone"):
        report.append(f"  the most frequent of {len(words)} unknown {tokenizer.kind}s")
        report += [f"  {piece}  {count}  {found.first[piece]}" for piece, count in _most(words)]
    if found.changed:
        some = ", ".join(found.changed[:5]) + (" ..." if len(found.changed) > 5 else "")
        report.append(f"  {len(found.changed)} texts do not come back from their ids: {some}")
    return report


def character_lines(characters: Counter[str], first: Mapping[str, str]) -> list[str]:
    """The characters outside a vocabulary, the most frequent first; nothing when there are none.

    Args:
        characters: how often each was seen.
        first: where each was seen first.
    """
    if not characters:
        return []
    report = ["  characters outside the vocabulary: code point, count, script, name, first utterance"]
    for character, count in _most(characters):
        about = unicodedata.name(character, "no name")
        shown = character if character.isprintable() and not unicodedata.combining(character) else "\u25cc"
        place = first[character]
        report.append(f"  U+{ord(character):04X} {shown}  {count}  {script(character)}  {about}  {place}")
    if len(characters) > SHOWN:
        report.append(f"  and {len(characters) - SHOWN} more characters")
    return report


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
