"""`speechkit phonemize` with the real espeak-ng, which is wrapped only to count how often it is started."""

import json
import os
import shutil
from pathlib import Path

import pytest
from factories import make_data_dir, write_table

from speechkit.bin.__main__ import main
from speechkit.data.kaldi_dir import read_data_dir

TEXTS = ["The cat sat.", "A dog ran, home!", "-v fr", "Cats sat", "The [[dog]] sat", "home"]


@pytest.fixture
def starts(tmp_path, monkeypatch):
    """A log with a line for each start of espeak-ng."""
    real, folder, log = shutil.which("espeak-ng"), tmp_path / "programs", tmp_path / "starts"
    folder.mkdir()
    (folder / "espeak-ng").write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {real} "$@"\n')
    (folder / "espeak-ng").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    log.touch()
    return log


def phonemize(data, out, *options, language="en-us"):
    words = ["phonemize", "--data", data, "--out", out, "--language", language, *options]
    return main(list(map(str, words)))


def text(folder):
    return read_data_dir(folder, need_audio=False).text


def test_a_data_directory_and_its_cache(tmp_path, starts, capsys):
    data = make_data_dir(tmp_path / "data/en", texts=TEXTS, segments=True)
    write_table(data / "spk2gender", {"s00": "f", "s01": "m"})
    write_table(data / "word_tags", {u: " ".join("-" * len(t.split())) for u, t in text(data).items()})
    out = tmp_path / "data/en_phn"
    assert phonemize(data, out) == 0
    made, source = read_data_dir(out), read_data_dir(data)
    assert made.text["s00-000"] == "ð ə k æ t s æ t" and made.text["s01-001"] == "k æ t s s æ t"
    assert made.text["s01-000"] == "ɐ d ɑː ɡ ɹ æ n h oʊ m"
    assert (made.wav, made.segments, made.utt2spk) == (source.wav, source.segments, source.utt2spk)
    assert set(made.tables["utt2lang"].values()) == {"en"} and made.tables["spk2gender"]["s01"] == "m"
    assert "word_tags" not in made.tables and (out / "rejected.jsonl").read_text() == ""
    assert starts.read_text().count("--ipa") == 1
    starts.write_text("")
    capsys.readouterr()
    assert phonemize(data, out) == 0 and "up to date" in capsys.readouterr().err
    assert phonemize(data, tmp_path / "data/again", "--vocabulary", "separate", "--code", "e1") == 0
    assert starts.read_text() == ""  # all of it was known
    again = read_data_dir(tmp_path / "data/again")
    assert (
        again.text["s00-000"].split()[:2] == ["(e1)ð", "(e1)ə"]
        and again.tables["utt2lang"]["s00-000"] == "e1"
    )


def test_hours_of_what_was_formatted_are_told(tmp_path, capsys):
    data = make_data_dir(tmp_path / "dump/en", 2, texts=["the cat", "это дом"])
    write_table(data / "utt2num_samples", {u: str(n) for u, n in zip(text(data), (16000, 32000))})
    assert phonemize(data, tmp_path / "phn", "--max-drop", "0.7") == 0
    rows = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["dropped", "1", f"{2 / 3600:.6f}"] in rows and ["in", "2", f"{3 / 3600:.6f}"] in rows
    assert json.loads((tmp_path / "phn/rejected.jsonl").read_text())["seconds"] == 2


def test_a_text_set_with_changed_languages(tmp_path, capsys):
    rows = {f"u{i}": word for i, word in enumerate(["дом", "это хороший день", "рука", "у меня ok"])}
    write_table(tmp_path / "ru/text", rows | {"u5": "windows", "u6": "..."})
    assert phonemize(tmp_path / "ru", tmp_path / "ru_phn", "--max-drop", "0.6", language="ru") == 0
    assert text(tmp_path / "ru_phn") == {"u0": "d o m", "u1": "ɛ t ʌ x ʌ r o ʃ y j dʲ e n", "u2": "r u k ɑ"}
    lines = (tmp_path / "ru_phn/rejected.jsonl").read_text().splitlines()
    dropped = {row["utterance"]: row["reason"] for row in map(json.loads, lines)}
    assert dropped == {"u3": "another script", "u5": "another script", "u6": "no phones"}
    said = capsys.readouterr().err
    counts = {
        line.rsplit(maxsplit=2)[0].strip(): int(line.rsplit(maxsplit=2)[1])
        for line in said.splitlines()[1:-1]
    }
    assert (counts["in"], counts["kept"], counts["another script"], counts["no phones"]) == (6, 3, 2, 1)
    assert "3 dropped (see" in said


def test_phonemizer_says_the_same(tmp_path):
    pytest.importorskip("phonemizer")
    write_table(tmp_path / "en/text", {"u1": "The cat sat", "u2": "a good, long day"})
    assert phonemize(tmp_path / "en", tmp_path / "one") == 0
    assert phonemize(tmp_path / "en", tmp_path / "two", "--source", "phonemizer") == 0
    assert text(tmp_path / "one") == text(tmp_path / "two") != {}


def test_a_lexicon_and_characters(tmp_path):
    write_table(tmp_path / "en/text", {"u1": "The cat!", "u2": "CAT"})
    Path(tmp_path / "lexicon").write_text("the DH AH0\nTHE X\ncat K AE T\ncat K A\n")
    options = ["--source", "lexicon", "--lexicon", tmp_path / "lexicon"]
    assert phonemize(tmp_path / "en", tmp_path / "one", *options) == 0
    assert text(tmp_path / "one") == {"u1": "DH AH0 K AE T", "u2": "K AE T"}
    assert phonemize(tmp_path / "en", tmp_path / "two", "--source", "grapheme", language="xx") == 0
    assert text(tmp_path / "two") == {"u1": "t h e c a t", "u2": "c a t"}
