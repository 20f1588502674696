"""`search.own_language` from the command line: phones of two languages, decoded with and without it."""

from __future__ import annotations

import pytest
from factories import write_table
from tiny_training import World

from speechkit.bin.__main__ import main
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.text.phone_tags import tag_of
from speechkit.text.phonemize import Options, phonemize
from speechkit.text.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model of the letters of en and es, hardly trained, and a set whose utterances are of both."""
    world = World(tmp_path_factory.mktemp("world"))
    for folder in (world.train, world.dev):
        text = read_data_dir(folder).text
        codes = {utterance: ("en", "es")[i % 2] for i, utterance in enumerate(sorted(text))}
        spelt = {}
        for code in ("en", "es"):
            part = {utterance: words for utterance, words in text.items() if codes[utterance] == code}
            spelt |= phonemize(part, Options(code, "grapheme", separate=True))
        write_table(
            folder / "text", {utterance: " ".join(found.phones) for utterance, found in spelt.items()}
        )
        write_table(folder / "utt2lang", codes)
    texts = [*read_data_dir(world.train).text.values(), *read_data_dir(world.dev).text.values()]
    build_tokenizer("phone", texts).save(world.tokenizer)
    assert world.run("exp/tiny/seed1", loop__max_updates=4) == 0
    return world


def tags(world, *options):
    """The language of the data and the languages of what is heard, for every utterance."""
    exp = world.folder / "exp/tiny/seed1"
    words = ["decode", "--model", exp, "--data", world.dev, "--force", "true", "--how", "own", *options]
    assert main([str(word) for word in words]) == 0
    codes = read_data_dir(world.dev).tables["utt2lang"]
    lines = (exp / "decode_dev_own/text").read_text(encoding="utf-8").splitlines()
    heard = {line.split()[0]: {tag_of(symbol) for symbol in line.split()[1:]} - {None} for line in lines}
    return [(codes[utterance], heard[utterance]) for utterance in codes]


@pytest.mark.parametrize("search", ["ctc_greedy", "ctc_beam"])
def test_only_the_utterances_own_language_is_heard(world, search):
    free = tags(world, f"search.name={search}")
    assert any(heard - {code} for code, heard in free)
    own = tags(world, f"search.name={search}", "search.own_language=true")
    assert all(heard <= {code} for code, heard in own) and any(heard for _, heard in own)


def test_a_set_that_does_not_say_its_languages(world, capsys):
    (world.dev / "utt2lang").rename(world.dev / "hidden")
    words = ["--model", str(world.folder / "exp/tiny/seed1"), "--data", str(world.dev), "--how", "own"]
    try:
        assert main(["decode", *words, "--force", "true", "search.own_language=true"]) == 1
    finally:
        (world.dev / "hidden").rename(world.dev / "utt2lang")
    assert "the data directory must say the languages, in utt2lang" in capsys.readouterr().err
