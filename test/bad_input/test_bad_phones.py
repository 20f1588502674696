"""Text that cannot become phones, and phones that cannot be scored or searched: one clear line each."""

import pytest
from factories import write_table

from speechkit.bin.__main__ import main


def refused(capsys, tmp_path, *options, language="en-us", data="en", out="out", code=1):
    words = ["phonemize", "--data", tmp_path / data, "--out", tmp_path / out, "--language", language]
    capsys.readouterr()
    assert main([str(word) for word in [*words, *options]]) == code
    last = capsys.readouterr().err.strip().splitlines()
    assert len(last) == 1 and not (tmp_path / out).exists()
    return last[0]


@pytest.fixture
def data(tmp_path):
    write_table(tmp_path / "en/text", {"u1": "the cat", "u2": "это дом", "u3": "a dog and more words here"})
    write_table(tmp_path / "ru/text", {"u1": "это дом", "u2": "а это рука"})
    write_table(tmp_path / "zh/text", {"u1": "你好世界", "u2": "我们"})
    write_table(tmp_path / "two/text", {"u1": "a", "u2": "b"})
    write_table(tmp_path / "two/utt2lang", {"u1": "en", "u2": "es"})
    (tmp_path / "lexicon").write_text("the ð ə\na (en)\ndog (en)d\n")
    return tmp_path


def test_languages_and_scripts(data, capsys):
    assert "no language 'en-uk'; did you mean 'en-u" in refused(capsys, data, language="en-uk")
    assert "has no language 'rus'; did you mean 'ru'" in refused(capsys, data, data="ru", language="rus")
    line = refused(capsys, data, data="ru")
    assert "en-us is written in LATIN, but 14 of 14 letters are not (" in line and "(u1, u2)" in line
    line = refused(capsys, data, "--max-drop", "0.1")
    assert "1 of 3 utterances dropped (u2: another script)" in line
    assert line.endswith(f"--max-drop 1 lists them in {data / 'out'}/rejected.jsonl")
    line = refused(capsys, data, out="test_en")
    assert "nothing may be dropped from an evaluation set: mend the data; --evaluation false --max-" in line
    line = refused(capsys, data, data="zh", language="cmn")
    assert "2 of 2 utterances are read in another language" in line and "cmn-latn-pinyin" in line
    assert "2 languages (en, es); phones are of one language" in refused(capsys, data, data="two")
    assert "language 'en us': expected a name" in refused(capsys, data, language="en us")


def test_lexicons(data, capsys):
    source = ["--source", "lexicon"]
    line = refused(capsys, data, *source, "--lexicon", data / "lexicon")
    assert (
        "lexicon: 7 words of the text are missing (cat это дом and more ...), the first in utterance u1"
        in line
    )
    assert "--source lexicon" in refused(capsys, data, *source, code=2)
    assert "lexicon: no such file" in refused(capsys, data, *source, "--lexicon", data / "none/lexicon")
    write_table(data / "flag/text", {"u1": "the", "u2": "a"})
    write_table(data / "tag/text", {"u1": "the dog"})
    for name, mark in (("flag", "'(en)'"), ("tag", "'(en)d'")):
        line = refused(capsys, data, *source, "--lexicon", data / "lexicon", data=name)
        assert f"{mark} is a mark of a language, not a phone" in line


def test_what_is_missing_or_broken(data, capsys, monkeypatch):
    assert "language code 'E N': take small letters" in refused(capsys, data, "--code", "E N")
    (data / "cache").mkdir()
    (data / "cache/versions.json").write_text("[]")
    assert "versions.json: not a record" in refused(capsys, data, "--cache", data / "cache")
    assert "is also the source" in _same(capsys, data)
    monkeypatch.setenv("PATH", str(data))
    line = refused(capsys, data)
    assert "there is no program espeak-ng; install it" in line and "--source lexicon" in line


def _same(capsys, data):
    assert (
        main(["phonemize", "--data", str(data / "en"), "--out", str(data / "en"), "--language", "en-us"]) == 1
    )
    return capsys.readouterr().err
