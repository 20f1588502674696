"""PER of every language and their mean, without the tags of a separate vocabulary."""

import json

import pytest

from speechkit.bin.__main__ import main

TEXT = {"u1": "(en)k (en)æ (en)t", "u2": "(es)t (es)a (es)k (es)o", "u3": "(es)o"}
HEARD = {"u1": "(en)k (es)æ (en)t", "u2": "(es)t (es)o (en)k", "u3": "(en)o (en)o"}


@pytest.fixture
def scored(tmp_path):
    """Scores TEXT against HEARD with these languages; returns the status and the folder."""
    data, folder = tmp_path / "dump/test", tmp_path / "exp/ctc/seed1/decode_test_greedy"

    def score(languages):
        for path, rows in ((data / "text", TEXT), (folder / "text", HEARD), (data / "utt2lang", languages)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{key} {value}\n" for key, value in rows.items()), encoding="utf-8")
        return main(["score", "--data", str(data), "--unit", "phone", str(folder)]), folder

    return score


def test_tags_do_not_count_and_each_language_has_its_rate(scored, capsys):
    status, folder = scored({"u1": "en", "u2": "es", "u3": "es"})
    assert status == 0
    assert capsys.readouterr().out.splitlines() == [
        "%PER 37.50 [ 3 / 8, 1 ins, 1 del, 1 sub ]",
        "%SER 66.67 [ 2 / 3 ]",
        "%PER-en 0.00 [ 0 / 3, 0 ins, 0 del, 0 sub ]",
        "%PER-es 60.00 [ 3 / 5, 1 ins, 1 del, 1 sub ]",
        "%PER-average 30.00 of 2 languages",
    ]
    languages = json.loads((folder / "result.json").read_text())["languages"]
    assert languages["average"] == 30 and list(languages["by_code"]) == ["en", "es"]
    assert languages["by_code"]["es"]["utterances"] == 2 and languages["by_code"]["es"]["errors"] == 3


def test_one_language_has_no_lines_of_its_own(scored, capsys):
    assert scored(dict.fromkeys(TEXT, "es"))[0] == 0
    assert "PER-" not in capsys.readouterr().out


def test_an_utterance_without_language(scored, capsys):
    assert scored({"u1": "en", "u2": "es"})[0] == 1
    assert "utterance u3: has no language in utt2lang" in capsys.readouterr().err
