"""The languages of mini_multi: what is said in each, by a grammar of its own, and who says it.

English comes from mini_en's grammar, the others from grammars/<language>.txt: an unindented line names a
symbol, the indented lines below it hold its alternatives, as `Grammar` reads them.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

SIBLING = Path(__file__).resolve().parents[3] / "mini_en/asr1/local"
sys.path.insert(0, str(SIBLING))

import sentences as english  # noqa: E402
from grammar import Grammar  # noqa: E402
from voices import deal  # noqa: E402

from speechkit.errors import InputError  # noqa: E402

CORPUS = "mini_multi 1"
GRAMMARS = Path(__file__).parent / "grammars"

# language -> espeak-ng's name of its voice
SOURCES = {"en": "en-us", "es": "es", "fr": "fr", "it": "it"}
TARGETS = {language: language for language in ("ky", "nl", "ru", "sv", "tt")}

# Groups of voices without a common one; dev and test of the targets have those of mini_en's dev and test.
_GROUPS = deal({"test": 8, "dev": 6, "train": 14, "source_dev": 4, "source": 0})
SOURCE_VOICES = {"dev": _GROUPS["source_dev"], "train": _GROUPS["source"]}
TARGET_VOICES = {
    "test": _GROUPS["test"],
    "dev": _GROUPS["dev"],
    "train": _GROUPS["train"],
    "unlabelled": _GROUPS["train"],
}


def read_rules(path: Path) -> dict[str, str]:
    """The rules of a grammar file: symbol -> alternatives.

    Raises:
        InputError: missing, or an indented line with no symbol above it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; every language but English needs a grammar") from None
    rules: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            alternatives = rules.setdefault(line.strip(), [])
        elif rules:
            alternatives.append(line)
        else:
            raise InputError(f"{path}:{number}: alternatives without a symbol; name it on a line above")
    return {symbol: "\n".join(alternatives) for symbol, alternatives in rules.items()}


def read_grammar(language: str) -> Grammar:
    """The grammar of a language; its sentences come from the symbol SENTENCE."""
    return Grammar(read_rules(GRAMMARS / f"{language}.txt"))


def write_texts(language: str, sizes: dict[str, int], seed: int) -> dict[str, list[str]]:
    """All sentences of a language; none comes up twice.

    Args:
        language: a key of SOURCES or TARGETS.
        sizes: set -> number of sentences; what comes first does not depend on the sizes of what follows.
        seed: fixes every draw, for each set on its own.

    Raises:
        InputError: the grammar has too few sentences.
    """
    if language == "en":
        asked = dict.fromkeys(english.SIZES, 0) | {"dev": sizes["dev"], "unlabelled": sizes["train"]}
        made = english.write_sets(seed, "speech", asked)
        return {"dev": [s.text for s in made["dev"]], "train": [s.text for s in made["unlabelled"]]}
    grammar = read_grammar(language)
    most = grammar.count("SENTENCE") // 10  # the more are taken, the longer one looks for another
    if sum(sizes.values()) > most:
        raise InputError(f"{language}: {sum(sizes.values())} sentences asked for, its grammar gives {most}")
    taken: set[str] = set()
    texts = {}
    for name, size in sizes.items():
        rng, own = random.Random(f"{CORPUS} {seed} {language} {name}"), []
        while len(own) < size:
            sentence = " ".join(grammar.draw("SENTENCE", rng))
            if sentence not in taken:
                taken.add(sentence)
                own.append(sentence)
        texts[name] = own
    return texts
