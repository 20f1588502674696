"""What espeak-ng writes for a sentence as clean IPA: a symbol a phone, nothing empty, no tones unless asked.

Phones for which espeak-ng has no IPA come out in its own ASCII notation (Kyrgyz `dZ`, `t[`, `S`; Mandarin
`ts.h`). The rules below were read off the inventories of espeak-ng 1.51; the notation is explained in
espeak-ng's docs/phonemes.md and in Kirshenbaum (2001), "Representing IPA phonetics in ASCII".
"""

from __future__ import annotations

import re
import unicodedata

SEPARATOR = "_"
"""What espeak-ng is told to write between phones."""

TONAL = ("cmn", "hak", "my", "shn", "th", "vi", "yue")
"""Languages whose vowels end in a tone: a digit, or `ɜ` for tone 3."""

_FLAG = re.compile(r"\([A-Za-z][A-Za-z0-9-]*\)")
_NOT_WRITTEN = str.maketrans("", "", "ˈˌ\u0361\u035c\u200d\u200b")  # stress, ties, joiners
_ASCII = str.maketrans(
    {"S": "ʃ", "Z": "ʒ", "N": "ŋ", "X": "χ", "T": "θ", "D": "ð", "g": "ɡ"}
    | {"[": "\u032a", "`": "ʼ", "?": "ʔ", ":": "ː", "ε": "ɛ"}
)
_LETTERS = {"oe": "œ", "l-": "ɫ", 'u"': "ʉ", "1": "ɨ"}
_RETROFLEX = dict(zip("szrtdnli", "ʂʐɽʈɖɳɭɨ"))
_TONE = re.compile(r"(.+?)([0-9]+ɜ?|ɜ)")
_ASPIRATED = re.compile(r"(p|t|k|c|ts|ʈʂ|tʂ|tɕ)h")


def language_switch(raw: str) -> str | None:
    """The first mark in espeak-ng's output that it left the language, such as `(en)`; None without one."""
    match = _FLAG.search(raw)
    return match[0] if match else None


def ipa_phones(raw: str, language: str, tones: bool = False) -> list[str]:
    """The phones of one line of espeak-ng's output.

    Args:
        raw: IPA with `_` between phones and spaces between words, without marks of switched languages.
        language: espeak-ng's name, such as "en-us".
        tones: write the tones of tonal languages, each as a symbol after its phone; or leave them out.

    Returns:
        Phones in Unicode's composed form, words joined without a boundary.
    """
    tonal = language.split("-")[0] in TONAL
    phones: list[str] = []
    for token in raw.replace(SEPARATOR, " ").split():
        token = unicodedata.normalize("NFC", token.translate(_NOT_WRITTEN))
        phones += _tonal(token, tones) if tonal else [_ipa(token)]
    return [phone for phone in phones if any(map(_is_sound, phone))]


def _tonal(token: str, tones: bool) -> list[str]:
    """A syllable's part without its tone, and the tone when it is wanted."""
    match = _TONE.fullmatch(token)
    phone, tone = (match[1], match[2].replace("ɜ", "3")) if match else (token, "")
    phone = _ASPIRATED.sub(r"\1ʰ", _ipa(phone))
    # Mandarin's `onɡ` is a vowel and a nasal.
    parts = [phone[:-2], "ŋ"] if len(phone) > 2 and phone.endswith("nɡ") else [phone]
    return [*parts, tone] if tones and tone else parts


def _ipa(token: str) -> str:
    for ascii_name, letter in _LETTERS.items():
        if token.removesuffix(":").removesuffix("ː") == ascii_name:
            token = token.replace(ascii_name, letter)
    token = re.sub(r"(.)\.", lambda match: _RETROFLEX.get(match[1], match[1]), token)
    # A hyphen marks a short sound of the same letter, as in French `ə-`.
    return unicodedata.normalize("NFC", token.rstrip("-").translate(_ASCII))


def _is_sound(character: str) -> bool:
    """Whether a character can be a phone by itself (a palatalisation mark cannot), or is a tone."""
    return unicodedata.category(character) in ("Ll", "Lo", "Lu", "Nd")


def odd_symbols(phones: set[str]) -> list[str]:
    """Phones with a character that IPA does not know: ASCII other than small letters, and no tone alone."""
    odd = re.compile(r"[\x00-/:-`{-\x7f]|(?<=.)[0-9]|[0-9](?=.)")
    return sorted(phone for phone in phones if odd.search(phone))
