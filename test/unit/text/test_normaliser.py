"""The declared normaliser against hand-written expectations."""

import unicodedata

import pytest

from speechkit.text.normalise import Config, Normaliser


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        (Config(), "cafe\u0301", "caf\u00e9"),
        (Config(form="NFD"), "caf\u00e9", "cafe\u0301"),
        (Config(form="none"), "cafe\u0301", "cafe\u0301"),
        (Config(form="NFKC"), "\ufb01ve \u00bd", "five 1\u20442"),
        (Config(), "  two\u00a0\u2003words\t\n", "two words"),
        (Config(), "a\x00b\x7fc", "a b c"),
        (Config(), "a▁b", "a_b"),
        (Config(case="lower"), "ÇA VA", "ça va"),
        (Config(case="upper"), "straße", "STRASSE"),
        (Config(punctuation="remove"), "“Don't,” she said—twice!", "Don't she said twice"),
        (Config(punctuation="remove", exceptions="-"), "don't well-known", "don t well-known"),
        (Config(punctuation="remove"), "नमस्ते।", "नमस्ते"),
        (Config(punctuation="remove"), "5 + 3 = $8", "5 + 3 = $8"),
        (Config(punctuation="remove"), "?!", ""),
    ],
)
def test_declared_steps(config, text, expected):
    assert Normaliser(config)(text) == expected


def test_lower_case_that_decomposes_is_composed_again():
    # Capital J with caron does not exist as one code point, its small letter does.
    assert Normaliser(Config(case="lower"))("J\u030c") == "\u01f0"


def test_marks_of_devanagari_and_zero_width_joiners_stay():
    text = "क्\u200dष हिन्दी"
    assert Normaliser(Config(case="lower", punctuation="remove"))(text) == unicodedata.normalize("NFC", text)


def test_hash_tells_configurations_apart():
    configs = [
        Config(),
        Config(form="NFD"),
        Config(case="lower"),
        Config(punctuation="remove"),
        Config(exceptions=""),
    ]
    assert len({Normaliser(config).hash for config in configs}) == len(configs)
    assert Normaliser().hash == Normaliser(Config()).hash
