"""In which letters a language is written, for espeak-ng's voices: text in other letters is of no use."""

from __future__ import annotations

import unicodedata
from collections import Counter

_ROWS = {
    "CYRILLIC": "ba be bg cv kk ky mk nog ru sr tt uk",
    "GREEK": "el grc",
    "ARABIC": "ar fa sd ug ur",
    "HEBREW": "he",
    "ARMENIAN": "hy hyw",
    "GEORGIAN": "ka",
    "ETHIOPIC": "am",
    "CHEROKEE": "chr",
    "DEVANAGARI": "hi kok mr ne",
    "BENGALI": "as bn bpy",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "MYANMAR": "my shn",
    "HANGUL": "ko",
    "CJK": "cmn ja yue",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "LATIN": "sr",
}


def scripts_of(language: str) -> set[str]:
    """The scripts of a language, by the names that Unicode gives its letters.

    Args:
        language: espeak-ng's name; `-latn` in it says Latin letters, and so does anything not known here.
    """
    base = language.split("-")[0]
    found = {script for script, languages in _ROWS.items() if base in languages.split()}
    return found if found and "-latn" not in language else {"LATIN"}


def foreign_letters(text: str, language: str) -> tuple[Counter[str], int]:
    """The letters of a text that are not of the language's scripts, and how many letters there are in all."""
    scripts, foreign, letters = scripts_of(language), Counter(), 0
    for character in text:
        if unicodedata.category(character) in ("Ll", "Lu", "Lt", "Lo"):
            letters += 1
            if not scripts & set(unicodedata.name(character, "").replace("-", " ").split()):
                foreign[character] += 1
    return foreign, letters
