"""Properties of normaliser and tokenizers over any Unicode text."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechkit.text.normalise import Config, Normaliser
from speechkit.text.tokenizer import build_tokenizer

ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
# Latin with combining marks, Devanagari, Arabic and Hebrew, emoji sequences, spaces of all sorts.
SCRIPTS = st.text(
    st.one_of(
        st.characters(min_codepoint=0x20, max_codepoint=0x24F),
        st.characters(min_codepoint=0x300, max_codepoint=0x345),
        st.characters(min_codepoint=0x900, max_codepoint=0x97F),
        st.characters(min_codepoint=0x590, max_codepoint=0x6FF),
        st.sampled_from(list("\u200d\ufe0f😀👩🏽\u2028\u00a0\u3000▁'’-—।ǅİßΣς")),
    ),
    max_size=30,
)
TEXT = st.one_of(ANY, SCRIPTS)
NORMALISERS = [
    Normaliser(Config(form=form, case=case, punctuation=punctuation))
    for form, case, punctuation in itertools.product(
        ("NFC", "NFD", "NFKC", "NFKD", "none"), ("keep", "lower", "upper"), ("keep", "remove")
    )
]


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_normalising_twice_changes_nothing_more(text):
    for normaliser in NORMALISERS:
        once = normaliser(text)
        assert normaliser(once) == once, normaliser.config


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_normalised_text_has_single_inner_spaces_and_no_space_token(text):
    for normaliser in NORMALISERS:
        written = normaliser(text)
        assert written == " ".join(written.split()) and "▁" not in written


@pytest.mark.parametrize("kind", ["char", "word", "phone"])
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_all_training_text_comes_back(kind, texts):
    normaliser = Normaliser()
    if not any(normaliser(text) for text in texts):
        return
    special = {"<blank>", "<unk>", "<sos/eos>"}
    if kind != "char" and special & {word for text in texts for word in normaliser(text).split()}:
        return
    tokenizer = build_tokenizer(kind, texts, normaliser)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.unk not in ids
        assert tokenizer.decode(ids) == normaliser(text)


SUBWORDS = {
    kind: build_tokenizer(kind, ["hello world नमस्ते", "مرحبا hello"] * 3, size=size, byte_fallback=True)
    for kind, size in (("bpe", 290), ("unigram", 279))
}


@pytest.mark.parametrize("kind", list(SUBWORDS))
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_byte_fallback_writes_any_text(kind, text):
    tokenizer = SUBWORDS[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.unk not in ids
    assert tokenizer.decode(ids) == tokenizer.normaliser(text)


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, len(SUBWORDS["bpe"]) - 1), max_size=20))
def test_any_ids_decode_to_text(ids):
    SUBWORDS["bpe"].decode(ids).encode("utf-8")
