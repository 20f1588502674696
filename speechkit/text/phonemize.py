"""Sentences to phones: by espeak-ng, by phonemizer, by a lexicon, or their characters as they are."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from speechkit.errors import InputError
from speechkit.text.normalise import Config as NormaliserConfig
from speechkit.text.normalise import Normaliser
from speechkit.text.phone import read_lexicon
from speechkit.text.phone_cache import PhoneCache, remembered_version
from speechkit.text.phone_inventory import ipa_phones, language_switch
from speechkit.text.phone_tags import add_tag, check_code, is_flag, tag_of
from speechkit.text.scripts import foreign_letters, scripts_of

SOURCES = ("espeak", "phonemizer", "lexicon", "grapheme")

FOREIGN = 0.1
"""Largest share of letters of another script in an utterance that can be used."""

NAMED = 5  # words, letters or utterances that a message names

_UNWRITTEN = str.maketrans("<>|~^`", "      ") | str.maketrans("’‘\u2010\u2011", "''--")
_LOOSE = re.compile(r"(?<!\w)-+|-+(?!\w)|(?<!\w)'+(?!\w)|(?<!\d)[.,]+|[.,]+(?!\d)")
_NORMALISER = Normaliser(NormaliserConfig(punctuation="remove", exceptions="'-.,%&@"))


@dataclass(frozen=True)
class Options:
    """How text becomes phones."""

    language: str
    """espeak-ng's name of the language, such as en-us."""
    source: str = "espeak"
    """One of `SOURCES`."""
    lexicon: Path | None = None
    """`word phone phone ...` lines, for the source lexicon."""
    separate: bool = False
    """Write `(xx)p`, so that no two languages share a symbol."""
    code: str = ""
    """The language's code in tags and utt2lang; empty: the name up to its first `-`."""
    tones: bool = False
    """Write the tones of tonal languages, each a symbol of its own."""
    cache: Path | None = None
    """Folder in which what espeak-ng wrote is kept; None keeps nothing."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InputError(f"source '{self.source}': must be one of {', '.join(SOURCES)}")
        if (self.lexicon is not None) != (self.source == "lexicon"):
            raise InputError("a lexicon goes with --source lexicon, and that source needs one")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", self.language):
            raise InputError(f"language '{self.language}': expected a name such as en-us")
        check_code(self.tag)

    @property
    def tag(self) -> str:
        """The code of the language."""
        return self.code or self.language.split("-")[0].lower()


@dataclass
class Spelt:
    """The phones of an utterance, or why there are none."""

    phones: list[str] = field(default_factory=list)
    reason: str = ""
    detail: str = ""


def clean(text: str) -> str:
    """A text as the sources read it: NFC, no punctuation but what lies within words and numbers.

    What a program might take for an instruction (`[[`, `<`, a `-` in front) is gone.
    """
    text = _NORMALISER(text.translate(_UNWRITTEN))
    return " ".join(_LOOSE.sub(" ", text).split())


def phonemize(texts: Mapping[str, str], options: Options) -> dict[str, Spelt]:
    """Phones of every utterance.

    Args:
        texts: utterance -> its words.
        options: the source and its options.

    Returns:
        Utterance -> phones in NFC, tagged when `separate`; or the reason why it cannot be used.

    Raises:
        InputError: no espeak-ng, a language that it does not know, text in another script, words that the
            lexicon does not have, or a symbol that is a language flag.
    """
    cleaned = {utterance: clean(text) for utterance, text in texts.items()}
    if not any(character.islower() for text in cleaned.values() for character in text):
        # espeak-ng spells short words of capitals: IT, US.
        cleaned = {utterance: text.lower() for utterance, text in cleaned.items()}
    spelt = _SPELL[options.source](cleaned, options)
    for utterance, found in spelt.items():
        for phone in found.phones:
            if is_flag(phone) or tag_of(phone) is not None:
                raise InputError(
                    f"utterance {utterance}: '{phone}' is a mark of a language, not a phone; mend its source"
                )
        if not found.reason and not found.phones:
            found.reason, found.detail = "no phones", f"'{texts[utterance][:60]}'"
        if options.separate:
            found.phones = [add_tag(options.tag, phone) for phone in found.phones]
    return spelt


def _by_espeak(texts: dict[str, str], options: Options) -> dict[str, Spelt]:
    from speechkit.text.espeak import Espeak

    espeak = Espeak(options.language)

    def spell(new: list[str]) -> list[str]:
        espeak.check_language()
        return espeak(new)

    def cache(folder: Path) -> PhoneCache:
        version = remembered_version(folder, espeak.program, lambda: espeak.version)
        return PhoneCache(folder, {"source": "espeak", "language": options.language, "version": version})

    try:
        return _by_program(texts, options, spell, cache)
    except InputError:
        espeak.check_language()  # where there is none of that name, nobody can tell its script
        raise


def _by_phonemizer(texts: dict[str, str], options: Options) -> dict[str, Spelt]:
    try:
        from phonemizer.backend import EspeakBackend
        from phonemizer.separator import Separator
    except ImportError:
        raise InputError("phonemizer is not installed: tools/setup.sh phones, or --source espeak") from None
    import phonemizer

    try:
        # Punctuation is gone; flags of other languages stay, so that we see them.
        backend = EspeakBackend(options.language, language_switch="keep-flags", words_mismatch="ignore")
    except RuntimeError as error:
        raise InputError(f"phonemizer: {str(error).splitlines()[0]}") from None
    version = [phonemizer.__version__, *map(str, backend.version())]

    def spell(new: list[str]) -> list[str]:
        return [line.strip() for line in backend.phonemize(new, Separator(phone="_", word=" "), strip=True)]

    def cache(folder: Path) -> PhoneCache:
        return PhoneCache(folder, {"source": "phonemizer", "language": options.language, "version": version})

    return _by_program(texts, options, spell, cache)


def _by_program(
    texts: dict[str, str],
    options: Options,
    spell: Callable[[list[str]], list[str]],
    cache: Callable[[Path], PhoneCache],
) -> dict[str, Spelt]:
    """Spells what is in the language's script, and refuses where the program left the language."""
    spelt = _in_another_script(texts, options.language)
    rest = {utterance: text for utterance, text in texts.items() if utterance not in spelt}
    some = [text for text in rest.values() if text]
    lines = cache(options.cache).get(some, spell) if options.cache is not None else spell(some)
    raw = dict(zip(some, lines))
    for utterance, text in rest.items():
        line = raw.get(text, "")
        switched = language_switch(line)
        if switched:
            spelt[utterance] = Spelt(reason="language switch", detail=f"{switched} in '{text[:60]}'")
        else:
            spelt[utterance] = Spelt(ipa_phones(line, options.language, options.tones))
    _refuse_other_language(spelt, options)
    return {utterance: spelt[utterance] for utterance in texts}


def _refuse_other_language(spelt: dict[str, Spelt], options: Options) -> None:
    switched = [utterance for utterance, found in spelt.items() if found.reason == "language switch"]
    if 2 * len(switched) > len(spelt):
        first = f"{switched[0]}: {spelt[switched[0]].detail}"
        chinese = "; Chinese is read well as pinyin with tone numbers, by the language cmn-latn-pinyin"
        raise InputError(
            f"language {options.language}: {len(switched)} of {len(spelt)} utterances are read in another "
            f"language ({first}){chinese if options.tag in ('cmn', 'zh') else ''}"
        )


def _in_another_script(texts: dict[str, str], language: str) -> dict[str, Spelt]:
    """The utterances with too many letters of another script; InputError when that is most of the text."""
    refused, every, letters = {}, Counter(), 0
    for utterance, text in texts.items():
        foreign, count = foreign_letters(text, language)
        every, letters = every + foreign, letters + count
        if foreign.total() > FOREIGN * count:
            detail = f"{foreign.total()} of {count} letters: {_some(foreign)}"
            refused[utterance] = Spelt(reason="another script", detail=detail)
    if 2 * every.total() > letters:
        names = ", ".join(sorted(refused)[:NAMED]) + (" ..." if len(refused) > NAMED else "")
        scripts = " or ".join(sorted(scripts_of(language)))
        raise InputError(
            f"language {language} is written in {scripts}, but {every.total()} of {letters} letters are not "
            f"({_some(every)}), in {len(refused)} utterances ({names}); is --language right?"
        )
    return refused


def _some(letters: Counter[str]) -> str:
    return " ".join(letter for letter, _ in letters.most_common(NAMED)) + (
        " ..." if len(letters) > NAMED else ""
    )


def _by_lexicon(texts: dict[str, str], options: Options) -> dict[str, Spelt]:
    """The first pronunciation of every word, as it stands, in small letters or in capitals."""
    nfc = lambda value: unicodedata.normalize("NFC", value)  # noqa: E731
    lexicon = {nfc(word): [nfc(p) for p in phones] for word, phones in read_lexicon(options.lexicon).items()}
    spelt, missing = {}, {}
    for utterance, text in texts.items():
        spelt[utterance] = Spelt()
        for word in text.split():
            forms = [form for form in (word, word.lower(), word.upper(), word.strip("'")) if form in lexicon]
            if forms:
                spelt[utterance].phones += lexicon[forms[0]]
            else:
                missing.setdefault(word, utterance)
    if missing:
        words = " ".join(list(missing)[:NAMED]) + (" ..." if len(missing) > NAMED else "")
        first = next(iter(missing.values()))
        raise InputError(
            f"{options.lexicon}: {len(missing)} words of the text are missing ({words}), the first in "
            f"utterance {first}; add them"
        )
    return spelt


def _by_grapheme(texts: dict[str, str], options: Options) -> dict[str, Spelt]:
    """Small letters, each with the marks that follow it."""
    letter = re.compile(r"\w[^\w\s'-]*")
    return {utterance: Spelt(letter.findall(text.lower())) for utterance, text in texts.items()}


_SPELL = {
    "espeak": _by_espeak,
    "phonemizer": _by_phonemizer,
    "lexicon": _by_lexicon,
    "grapheme": _by_grapheme,
}
