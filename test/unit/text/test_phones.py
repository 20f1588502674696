"""Phones: clean IPA from what espeak-ng writes, tags of languages, and vocabularies written by hand."""

import itertools

import pytest

from speechkit.errors import InputError
from speechkit.text.espeak import PIECE, Espeak, cut
from speechkit.text.normalise import Config, Normaliser
from speechkit.text.phone_inventory import ipa_phones, language_switch, odd_symbols
from speechkit.text.phone_tags import is_flag, strip_tag, strip_tags, tag_of
from speechkit.text.phonemize import Options, clean, phonemize
from speechkit.text.scripts import foreign_letters
from speechkit.text.tokenizer import build_tokenizer, load_tokenizer


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        ("en-us", "ð_ə k_ˈæ_t s_ˌæ_t", "ð ə k æ t s æ t"),
        ("nl", "_ə_n  d_ˈɑ_x__ ", "ə n d ɑ x"),
        ("ky", "b_ˈu_l- dZ_ɑ_q_S_ˈɯ ɑ_t[_d[_N_X_e:_oe:", "b u ɫ dʒ ɑ q ʃ ɯ ɑ t̪ d̪ ŋ χ eː œː"),
        ("ru", 'u"_ˈo_ʲ_g', "ʉ o ɡ"),
        ("fr-fr", "s_ə- ɛ̃", "s ə ɛ̃"),
        ("de", "t͡s_t\u200ds", "ts ts"),
        ("da", "?a_ε", "ʔa ɛ"),
        ("cmn-latn-pinyin", "ts.h_ˈonɡɜ_ th_ˈɑ5_ s._ˈi.5", "tʂʰ o ŋ tʰ ɑ ʂ ɨ"),
        ("vi", "b_ˈaː6_n_ e-1_ɲ s_aɜ ɜ", "b aː n e ɲ s a ɜ"),
        ("en-us", "b_ɜ_d", "b ɜ d"),
    ],
)
def test_clean_ipa(language, raw, expected):
    assert ipa_phones(raw, language) == expected.split()
    assert not odd_symbols(set(ipa_phones(raw, language)))


def test_tones_are_symbols_of_their_own_when_wanted():
    assert ipa_phones("b_ˈaː6_n s_aɜ", "vi", tones=True) == "b aː 6 n s a 3".split()
    assert odd_symbols({"a6", "b", "6", "X", "t["}) == ["X", "a6", "t["]


def test_switches_are_seen_wherever_they_stand():
    assert (
        language_switch("z_ʌ (en)_w_ˈɪ_n_(ru)") == "(en)" and language_switch("a_(chr-US-Qaaa)") is not None
    )
    assert language_switch("ð_ə") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-v fr  Hello, world!", "v fr Hello world"),
        ("[[h@l%oU]] <speak>hi</speak>", "h@l%oU speak hi speak"),
        ("l’eau est-ce “que” - 'tis dogs'", "l'eau est-ce que 'tis dogs'"),
        ("1,000 or 3.14. End", "1,000 or 3.14 End"),
        ("cafe\u0301\t\x07x", "café x"),
        ("... -- ' _", ""),
    ],
)
def test_nothing_of_a_text_can_be_an_instruction(text, expected):
    assert clean(text) == expected


def test_long_texts_are_cut_at_spaces_and_nothing_is_lost():
    text = " ".join(f"слово{i}" for i in range(200))
    pieces = cut(text)
    assert (
        len(pieces) > 1 and all(len(piece.encode()) <= PIECE for piece in pieces) and " ".join(pieces) == text
    )
    thai = "ก" * 500
    assert "".join(cut(thai)) == thai and max(len(piece.encode()) for piece in cut(thai)) <= PIECE
    assert cut("") == [] and cut("a " + thai + " b")[0] == "a"


def test_a_batch_is_a_line_for_each_text_as_when_asked_alone():
    texts = ["one two", "well-known", "a " * 500, "..", "$5 and 1,000", "the end"]
    espeak = Espeak("en-us")
    together = espeak(texts)
    assert together[0] == espeak(texts[:1])[0] and together[-1] == espeak(texts[-1:])[0]
    assert together[0].replace("ˈ", "").split() == ["w_ʌ_n", "t_uː"]
    assert len(together[2].replace("_", " ").split()) >= 500


def test_a_line_read_as_several_clauses_stays_with_its_text():
    espeak = Espeak("en-us")
    assert [len(line.split()) for line in espeak(["one. two. three", "four", "", "five, six"])] == [
        3,
        1,
        0,
        2,
    ]


def test_scripts():
    assert foreign_letters("бул kitep", "ky") == ({"k": 1, "i": 1, "t": 1, "e": 1, "p": 1}, 8)
    assert foreign_letters("ta1 你好", "cmn-latn-pinyin")[0].keys() == {"你", "好"}
    assert not foreign_letters("été 12!", "fr-fr")[0] and not foreign_letters("ひらカタ漢字", "ja")[0]


def test_tags():
    assert strip_tags("(en)t (pt-br)ɛ̃ s") == "t ɛ̃ s" and tag_of("(pt-br)ɛ̃") == "pt-br"
    assert tag_of("s") is None and strip_tag("(en)") == "(en)"
    assert is_flag("(en)") and is_flag("(chr-US)") and not is_flag("(en)t") and not is_flag("t")


# ---- vocabularies (a toy corpus whose tables are written by hand) ----------------------------------------

CORPUS = {"en": {"a1": "cat", "a2": "tic"}, "es": {"b1": "taco", "b2": "n\u0303u"}}
SHARED = ["a", "c", "i", "o", "t", "u", "ñ"]
SEPARATE = "(en)a (en)c (en)i (en)t (es)a (es)c (es)o (es)t (es)u (es)ñ".split()


def sentences(separate):
    lines = []
    for code, texts in CORPUS.items():
        spelt = phonemize(texts, Options(code, "grapheme", separate=separate))
        lines += [" ".join(found.phones) for found in spelt.values()]
    return lines


@pytest.mark.parametrize(("separate", "expected"), [(False, SHARED), (True, SEPARATE)])
def test_vocabularies_are_those_written_by_hand(tmp_path, separate, expected):
    lines = sentences(separate)
    tokenizer = build_tokenizer("phone", lines)
    assert tokenizer.vocab[2:-1] == sorted(expected)
    tokenizer.save(tmp_path / "tokens")
    again = load_tokenizer(tmp_path / "tokens")
    assert [again.decode(again.encode(line)) for line in lines] == lines
    assert all(1 not in again.encode(line) for line in lines)


def test_separate_vocabularies_are_disjoint():
    owners = {code: {p for p in SEPARATE if tag_of(p) == code} for code in CORPUS}
    assert not owners["en"] & owners["es"] and {strip_tag(p) for p in SEPARATE} == set(SHARED)


@pytest.mark.parametrize("form, case", itertools.product(["NFC", "NFD", "NFKC"], ["keep", "lower", "upper"]))
def test_no_normaliser_merges_the_languages_of_a_symbol(form, case):
    normaliser = Normaliser(Config(form=form, case=case))
    tokenizer = build_tokenizer("phone", sentences(True), normaliser)
    assert len(tokenizer.vocab) == len(SEPARATE) + 3


def test_what_would_break_tags_or_be_a_flag_is_refused():
    with pytest.raises(InputError, match=r"punctuation=remove would break \(en\)p"):
        build_tokenizer("phone", sentences(True), Normaliser(Config(punctuation="remove")))
    with pytest.raises(InputError, match=r"'\(tt\)' marks a change of language"):
        build_tokenizer("phone", ["t (tt) a"])
