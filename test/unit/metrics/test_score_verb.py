"""`speechkit score` and `speechkit compare` on files."""

import json

import pytest

from speechkit.bin.__main__ import main
from speechkit.text.normalise import Config, Normaliser
from speechkit.text.tokenizer import build_tokenizer

TEXT = "s1-a the knight rode\ns1-b two weeks\ns2-a flour\n"
HYPOTHESES = "s1-b weeks\ns1-a the night rode off\ns2-a flower\n"
TAGS = "s1-a - far,seen other,seen\ns1-b near,seen other,seen\ns2-a far,seen\n"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "dump" / "test"
    folder.mkdir(parents=True)
    (folder / "text").write_text(TEXT)
    (folder / "utt2spk").write_text("s1-a s1\ns1-b s1\ns2-a s2\n")
    (folder / "word_tags").write_text(TAGS)
    return folder


def decode(tmp_path, text=HYPOTHESES, system="ctc", seed=1, how="greedy", **record):
    folder = tmp_path / "exp" / system / f"seed{seed}" / f"decode_test_{how}"
    folder.mkdir(parents=True)
    (folder / "text").write_text(text, encoding="utf-8")
    if record:
        (folder / "decode.json").write_text(json.dumps(record))
    return folder


def score(data, *folders):
    return main(["score", "--data", str(data), *map(str, folders)])


def test_every_file_that_is_written(data, tmp_path, capsys):
    folder = decode(tmp_path, tuned_on="dev", parameters=7, commands={"train": "t"})
    assert score(data, folder) == 0
    lines = "%WER 66.67 [ 4 / 6, 1 ins, 1 del, 2 sub ]\n%SER 100.00 [ 3 / 3 ]\n%CER "
    assert capsys.readouterr().out.startswith(lines)
    assert (folder / "wer").read_text().startswith(lines)
    result = json.loads((folder / "result.json").read_text())
    assert [result[key] for key in ("system", "seed", "set", "how")] == ["ctc", 1, "test", "greedy"]
    assert result["counts"] == {"words": 6, "errors": 4, "ins": 1, "del": 1, "sub": 2}
    assert result["speakers"]["s1"]["errors"] == 3 and result["classes"]["far"] == {"words": 2, "errors": 2}
    assert (result["tuned_on"], result["parameters"], result["commands"]) == ("dev", 7, {"train": "t"})
    assert result["scored_times"] == 1 and result["scored"]["date"].endswith("Z")
    rows = [json.loads(line) for line in (folder / "utterances.jsonl").read_text().splitlines()]
    assert [row["utterance"] for row in rows] == ["s1-a", "s1-b", "s2-a"]
    assert rows[0]["classes"]["far"] == [1, 1] and rows[0]["ins"] == 1
    assert "REF:  the knight rode ***" in (folder / "aligned.txt").read_text()
    confusions = (folder / "confusions.tsv").read_text().splitlines()
    assert "substitution\t1\tknight\tnight" in confusions and "deletion\t1\ttwo\t" in confusions
    speakers = (folder / "speakers.tsv").read_text().splitlines()
    assert speakers[1].startswith("s1\t2\t2\t5\t3\t") and speakers[-1].startswith("all\t3\t3\t6\t4\t")


def test_scoring_again_is_skipped_and_new_hypotheses_are_counted(data, tmp_path, capsys):
    folder = decode(tmp_path)
    assert score(data, folder) == score(data, folder) == 0
    said = capsys.readouterr()
    assert "up to date" in said.err and said.out.count("%WER 66.67") == 2
    log = tmp_path / "exp" / "test_scorings.jsonl"
    assert len(log.read_text().splitlines()) == 1
    (folder / "text").write_text(TEXT)
    assert score(data, folder) == 0
    assert "%WER 0.00 [ 0 / 6" in capsys.readouterr().out
    assert json.loads((folder / "result.json").read_text())["scored_times"] == 2
    assert main(["score", "--data", str(data), str(folder), "--force", "true"]) == 0
    # The same hypotheses again are one more line, and no more hypotheses.
    assert len(log.read_text().splitlines()) == 3
    assert json.loads((folder / "result.json").read_text())["scored_times"] == 2


def test_both_sides_go_through_the_normaliser_of_the_model(data, tmp_path, capsys):
    folder = decode(tmp_path, "s1-a THE KNIGHT, RODE\ns1-b Two weeks!\ns2-a flour\n")
    normaliser = Normaliser(Config(case="lower", punctuation="remove"))
    build_tokenizer("char", [TEXT], normaliser).save(folder.parent / "final" / "assets" / "tokenizer")
    assert score(data, folder) == 0
    assert "%WER 0.00" in capsys.readouterr().out
    scored = json.loads((folder / "result.json").read_text())["scored"]
    assert scored["normaliser"]["hash"] == normaliser.hash


def test_normaliser_of_decode_json_and_of_the_command_line(data, tmp_path, capsys):
    folder = decode(tmp_path, TEXT.upper().replace("S1-", "s1-").replace("S2-", "s2-").replace("-A", "-a"))
    text = (folder / "text").read_text().replace("-B", "-b")
    (folder / "text").write_text(text)
    assert score(data, folder) == 0
    assert "%WER 100.00" in capsys.readouterr().out
    (folder / "decode.json").write_text(json.dumps({"normaliser": {"case": "lower", "hash": "x"}}))
    assert score(data, folder) == 0
    assert "%WER 0.00" in capsys.readouterr().out
    build_tokenizer("char", ["A"], Normaliser(Config(case="upper"))).save(tmp_path / "tokens")
    command = ["score", "--data", str(data), str(folder), "--normaliser", str(tmp_path / "tokens")]
    assert main(command) == 0
    assert "%WER 0.00" in capsys.readouterr().out
    scored = json.loads((folder / "result.json").read_text())["scored"]
    assert scored["normaliser"]["case"] == "upper"


def test_missing_hypotheses_only_with_the_flag(data, tmp_path, capsys):
    folder = decode(tmp_path, "s1-a the knight rode\n")
    assert score(data, folder) == 1
    assert "2 missing (s1-b, s2-a)" in capsys.readouterr().err
    assert not (folder / "result.json").exists()
    assert main(["score", "--data", str(data), str(folder), "--missing-as-deletions", "true"]) == 0
    assert "%WER 50.00 [ 3 / 6, 0 ins, 3 del, 0 sub ]" in capsys.readouterr().out
    assert json.loads((folder / "result.json").read_text())["scored"]["missing_as_deletions"] == 2


def test_cer_without_spaces(data, tmp_path):
    folder = decode(tmp_path)
    assert score(data, folder) == 0
    with_spaces = json.loads((folder / "result.json").read_text())["cer"]["counts"]["characters"]
    assert main(["score", "--data", str(data), str(folder), "--cer-spaces", "false"]) == 0
    without = json.loads((folder / "result.json").read_text())["cer"]["counts"]["characters"]
    assert with_spaces - without == 3


def test_phones_of_a_lexicon(data, tmp_path, capsys):
    (tmp_path / "lexicon").write_text(
        "the ð ə\nknight n aɪ t\nrode ɹ oʊ d\ntwo t uː\nweeks w iː k s\nflour f l aʊ ɚ\n"
    )
    tokenizer = build_tokenizer("phone", [], lexicon=tmp_path / "lexicon")
    tokenizer.save(tmp_path / "phones")
    spoken = "s1-a ð ə n aɪ t ɹ oʊ d\ns1-b t uː w iː k\ns2-a f l aʊ ɚ\n"
    folder = decode(tmp_path, spoken)
    options = ["--unit", "phone", "--normaliser", str(tmp_path / "phones")]
    assert main(["score", "--data", str(data), str(folder), *options]) == 0
    assert capsys.readouterr().out.startswith("%PER 5.56 [ 1 / 18, 0 ins, 1 del, 0 sub ]\n%SER 33.33")
    result = json.loads((folder / "result.json").read_text())
    assert result["metric"] == "PER" and "cer" not in result


def test_compare_and_paired_with(data, tmp_path, capsys):
    good, bad = decode(tmp_path, TEXT, "good"), decode(tmp_path, HYPOTHESES, "bad")
    assert score(data, bad, good) == 0
    capsys.readouterr()
    assert main(["compare", str(good), "--with", str(bad)]) == 0
    assert capsys.readouterr().out.startswith("all words: 0.00 - 66.67 = -66.67 [")
    assert main(["compare", str(good), "--with", str(bad), "--class", "near"]) == 0
    assert capsys.readouterr().out.startswith("near: 0.00 - 100.00 = -100.00")
    assert main(["score", "--data", str(data), str(good), "--paired-with", str(bad)]) == 0
    assert "0.00 - 66.67 = -66.67" in capsys.readouterr().out


def test_name_of_the_set_may_have_underscores(tmp_path, data):
    data = data.rename(data.parent / "test_hard")
    folder = tmp_path / "exp" / "ctc" / "seed1" / "decode_test_hard_beam_4gram"
    folder.mkdir(parents=True)
    (folder / "text").write_text(HYPOTHESES)
    assert score(data, folder) == 0
    result = json.loads((folder / "result.json").read_text())
    assert (result["set"], result["how"]) == ("test_hard", "beam_4gram")
