"""Bad hypotheses, references, tags and results: one clear line, no result left behind."""

import json
import re

import pytest

from speechkit.bin.__main__ import main

TEXT = "s1-a the knight rode\ns1-b two weeks\ns2-a flour\n"
SPEAKERS = "s1-a s1\ns1-b s1\ns2-a s2\n"
TAGS = "s1-a - far far\ns1-b near near\ns2-a far\n"
WRITTEN = ("result.json", "utterances.jsonl", "aligned.txt", "speakers.tsv", "confusions.tsv", "wer")


@pytest.fixture
def files(tmp_path):
    """A data directory and a decode folder that score well, for a test to damage."""
    data, decode = tmp_path / "dump" / "test", tmp_path / "exp" / "ctc" / "seed1" / "decode_test_greedy"
    for folder in (data, decode):
        folder.mkdir(parents=True)
        (folder / "text").write_text(TEXT)
    (data / "utt2spk").write_text(SPEAKERS)
    (data / "word_tags").write_text(TAGS)
    return data, decode


def status(*arguments):
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse
        return exit_.code


@pytest.mark.parametrize(
    ("place", "content", "expected"),
    [
        ("decode/text", None, r"text: no such file; decode first"),
        ("decode/text", "", r"decode_test_greedy/text: the file is empty"),
        ("decode/text", "s1-a x\ns1-b y\n", r"1 missing \(s2-a\); decode the whole set"),
        ("decode/text", TEXT + "s3-a x\n", r"1 unknown \(s3-a\)"),
        ("decode/text", "a x\nb y\n", r"3 missing \(s1-a, s1-b, s2-a\); 2 unknown \(a, b\)"),
        ("decode/text", TEXT + "s1-a again\n", r"greedy/text:4: utterance id is there twice \(s1-a\)"),
        ("decode/text", b"s1-a \xff\n", r"greedy/text:1: not UTF-8: byte 5"),
        ("data/text", None, r"test/text: no such file"),
        ("data/text", "", r"test/text: the file is empty"),
        ("data/text", "s1-a x\ns1-b\ns2-a z\n", r"test/text:2: utterance without text \(s1-b\)"),
        ("data/text", TEXT + "s1-b again\n", r"test/text:4: utterance id is there twice"),
        ("data/utt2spk", "s1-a s1\ns1-b s1\n", r"utterance s2-a: has no speaker in utt2spk"),
        ("data/utt2spk", "s1-a s1\ns1-b\ns2-a s2\n", r"utt2spk:2: utterance without text"),
        ("data/word_tags", "s1-a - far\ns1-b near near\ns2-a far\n", r"s1-a: word_tags has 2 tags for 3"),
        ("data/word_tags", "s1-a - far far\n", r"utterance s1-b: has no line in word_tags"),
        ("decode/decode.json", "{", r"decode.json:1: not JSON"),
        ("decode/decode.json", "[]", r"decode.json: expected keys and values"),
        ("decode/decode.json", '{"normaliser": {"case": "tiny"}}', r"case: 'tiny' is not one of"),
    ],
)
def test_files_to_score(files, capsys, place, content, expected):
    data, decode = files
    folder, name = place.split("/")
    path = (data if folder == "data" else decode) / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert status("score", "--data", data, decode) == 1
    message = capsys.readouterr().err
    assert re.search(expected, message), message
    assert not any((decode / written).exists() for written in WRITTEN)
    assert not (decode.parents[2] / "test_scorings.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--unit", "sentence"], 2, "invalid choice: 'sentence'"),
        (["--normaliser", "nowhere"], 1, "nowhere/tokenizer.json: no such file"),
        (["--missing-as-deletions", "1"], 2, "'1' is neither true nor false"),
        (["--datum", "x"], 2, "unrecognized arguments"),
    ],
)
def test_options(files, capsys, options, code, expected):
    data, decode = files
    assert status("score", "--data", data, decode, *options) == code
    assert expected in capsys.readouterr().err
    assert not (decode / "result.json").exists()


def test_folder_that_does_not_say_what_it_is(files, capsys):
    data, decode = files
    odd = decode.rename(decode.parents[2] / "somewhere")
    assert status("score", "--data", data, odd) == 1
    assert "somewhere: cannot tell its system, seed, set, how" in capsys.readouterr().err
    assert status("score", "--data", data, odd / "nowhere") == 1
    assert "nowhere: no such decode folder" in capsys.readouterr().err


def test_reference_word_outside_the_lexicon(files, tmp_path, capsys):
    from speechkit.text.tokenizer import build_tokenizer

    data, decode = files
    (tmp_path / "lexicon").write_text("the ð ə\n")
    build_tokenizer("phone", [], lexicon=tmp_path / "lexicon").save(tmp_path / "phones")
    options = ["--unit", "phone", "--normaliser", tmp_path / "phones"]
    assert status("score", "--data", data, decode, *options) == 1
    assert "utterance s1-a: 'knight' is not in the lexicon" in capsys.readouterr().err


def test_references_that_the_normaliser_empties(files, capsys):
    data, decode = files
    (data / "word_tags").unlink()
    for folder in files:
        (folder / "text").write_text("s1-a ...\ns1-b ?\ns2-a !\n")
    (decode / "decode.json").write_text(json.dumps({"normaliser": {"punctuation": "remove"}}))
    assert status("score", "--data", data, decode) == 1
    assert "no reference words" in capsys.readouterr().err


def test_compare_what_is_not_scored_or_has_no_such_class(files, tmp_path, capsys):
    data, decode = files
    assert status("compare", decode, "--with", decode) == 1
    assert "utterances.jsonl: no such file; run speechkit score" in capsys.readouterr().err
    assert status("score", "--data", data, decode) == 0
    assert status("compare", decode, "--with", decode, "--class", "nearby") == 1
    assert "no word of class 'nearby'; classes here: far, near" in capsys.readouterr().err
    assert status("compare", decode, "--with", decode, "--resamples", "5") == 1
    assert "--resamples 5: at least 100" in capsys.readouterr().err
    with open(decode / "utterances.jsonl", "a") as file:
        file.write('{"utterance": "x"}\n')
    assert status("compare", decode, "--with", decode) == 1
    assert "utterances.jsonl:4: not a line of speechkit score" in capsys.readouterr().err


def report(tmp_path, *options):
    return status(
        "report", "--exp", tmp_path / "exp", "--out", tmp_path / "RESULTS.md", "--plots", "false", *options
    )


def test_report_without_results(tmp_path, capsys):
    assert report(tmp_path) == 1
    assert "exp: no such folder" in capsys.readouterr().err
    (tmp_path / "exp").mkdir()
    assert report(tmp_path) == 1
    assert "no result.json below it" in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()


def test_report_with_broken_results(files, tmp_path, capsys):
    data, decode = files
    assert status("score", "--data", data, decode) == 0
    assert report(tmp_path, "--baseline", "ctc/greedyy") == 1
    assert "--baseline ctc/greedyy: no such result; did you mean 'ctc/greedy'" in capsys.readouterr().err
    copy = decode.parent / "decode_test_copy"
    copy.mkdir()
    for name in ("result.json", "utterances.jsonl"):
        (copy / name).write_text((decode / name).read_text())
    assert report(tmp_path) == 1
    assert "ctc/greedy of seed 1 on test is also in" in capsys.readouterr().err
    (copy / "result.json").write_text('{"system": "x"}')
    assert report(tmp_path) == 1
    assert "result.json: not a result of speechkit score (no seed" in capsys.readouterr().err
    (copy / "result.json").unlink()
    (tmp_path / "RESULTS.md").write_text("# Mine\n\n<!-- generated by hand -->\nrest\n")
    assert report(tmp_path) == 1
    assert "RESULTS.md:3: the generated part has no end" in capsys.readouterr().err
    assert (tmp_path / "RESULTS.md").read_text().endswith("rest\n")
    assert report(tmp_path, "--systems", tmp_path / "nowhere.yaml") == 1
    assert "nowhere.yaml: no such configuration file" in capsys.readouterr().err


def test_report_with_a_broken_learning_curve(files, tmp_path, capsys):
    data, decode = files
    assert status("score", "--data", data, decode) == 0
    (decode.parent / "metrics.jsonl").write_text('{"update": 1, "kind": "dev", "loss": 1}\n{"upd\n')
    assert status("report", "--exp", tmp_path / "exp", "--out", tmp_path / "RESULTS.md") == 1
    assert "metrics.jsonl:2: not JSON" in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()
