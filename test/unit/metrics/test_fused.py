"""What either output of a fusion is good for, on decode folders made by hand."""

import json

import pytest

from speechkit.bin.__main__ import main
from speechkit.metrics.fused import opposite

REFERENCES = {
    "s1-a": ("the knight rode", "- far,seen other,seen"),
    "s1-b": ("two weeks ago", "near,seen - -"),
    "s1-c": ("a flower", "- far,unseen"),
    "s2-a": ("he said no", "- - near,seen"),
    "s2-b": ("one more day", "far,seen - -"),
}
# utterance: (first CTC, CTC2, CE, the kept one)
HEARD = {
    "s1-a": ("the night rode", "the night rode", "the knight rode", "ce"),  # CE alone is right
    "s1-b": ("two weeks ago", "two weeks ago", "to weeks", "ce"),  # CTC2 alone, and CE was kept
    "s1-c": ("a flour", "a flower", "a flower", "ctc2"),  # both
    "s2-a": ("he said know", "he said know off", "said know", "ctc2"),  # neither
    "s2-b": ("won more day", "one more day", "one more day", "ce"),  # both
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dump" / "test"
    folder.mkdir(parents=True)
    (folder / "text").write_text("".join(f"{u} {text}\n" for u, (text, _) in REFERENCES.items()))
    (folder / "utt2spk").write_text("".join(f"{u} {u[:2]}\n" for u in REFERENCES))
    (folder / "word_tags").write_text("".join(f"{u} {tags}\n" for u, (_, tags) in REFERENCES.items()))
    return folder


def decode(tmp_path, heard=HEARD, system="wavbert", seed=1, names=("ctc", "ctc2", "ce")):
    """A folder as `speechkit decode` with the search `fused` leaves it."""
    folder = tmp_path / "exp" / system / f"seed{seed}" / "decode_test_fused"
    folder.mkdir(parents=True)
    lines, lists = [], []
    for utterance, (*texts, kept) in heard.items():
        said = dict(zip(names, texts))
        order = [kept, *(name for name in names[1:] if name != kept), names[0]]
        nbest = [{"text": said[n], "source": n, "candidate": n != "ctc"} for n in order if n in said]
        lists.append(json.dumps({"utterance": utterance, "nbest": nbest}) + "\n")
        lines.append(f"{utterance} {said[kept]}\n")
    (folder / "text").write_text("".join(lines))
    (folder / "nbest.jsonl").write_text("".join(lists))
    return folder


def score(*folders):
    return main(["score", "--data", "dump/test", *map(str, folders)])


def test_shares_oracle_and_words(data, tmp_path, capsys):
    folder = decode(tmp_path)
    assert score(folder) == 0
    said = capsys.readouterr().out
    found = json.loads((folder / "result.json").read_text())
    fusion = found["fusion"]
    assert fusion["utterances"] == 5
    assert fusion["right"] == {"ce": 1, "ctc2": 1, "both": 2, "neither": 1}
    assert fusion["kept"] == {"ce": 3, "ctc2": 2}
    # Of 14 words: knight, flour, know, won; night, know, off; to, ago, he, know.
    errors = {name: output["counts"]["errors"] for name, output in fusion["outputs"].items()}
    assert errors == {"ctc": 4, "ctc2": 3, "ce": 4}
    assert fusion["oracle"]["counts"]["errors"] == 2 and fusion["oracle"]["counts"]["words"] == 14
    # What the first CTC says takes no part in the oracle of the list either.
    assert found["oracle"]["nbest"] == 2 and found["oracle"]["counts"]["errors"] == 2
    assert fusion["words"]["all"] == {"fixed": 3, "broken": 2}
    assert fusion["words"]["far"] == {"fixed": 3, "broken": 0}
    assert fusion["words"]["near"] == {"fixed": 0, "broken": 1}
    assert fusion["words"]["unseen"] == {"fixed": 1, "broken": 0}
    assert (
        "%FUSION right: 40.00 both, 20.00 ce, 20.00 ctc2, 20.00 neither; kept: 60.00 ce, 40.00 ctc2" in said
    )
    assert said.splitlines()[-1].endswith("oracle 14.29; words 3 fixed, 2 broken")


def test_every_changed_word_is_listed(data, tmp_path):
    folder = decode(tmp_path)
    score(folder)
    head, *rows = [line.split("\t") for line in (folder / "fusion.tsv").read_text().splitlines()]
    assert head == ["utterance", "change", "word", "tag", "before", "after", "source"]
    assert rows == [
        ["s1-a", "fixed", "knight", "far,seen", "night", "knight", "ce"],
        ["s1-b", "broken", "two", "near,seen", "two", "to", "ce"],
        ["s1-b", "broken", "ago", "-", "ago", "", "ce"],
        ["s1-c", "fixed", "flower", "far,unseen", "flour", "flower", "ctc2"],
        ["s2-b", "fixed", "one", "far,seen", "won", "one", "ce"],
    ]
    examples = json.loads((folder / "result.json").read_text())["fusion"]["examples"]
    assert [(e["change"], e["word"]) for e in examples] == [
        ("fixed", "knight"),
        ("fixed", "flower"),
        ("fixed", "one"),
        ("broken", "two"),  # one an utterance, the near homophone before the other word
    ]
    assert examples[0]["ctc"] == "the night rode" and examples[0]["kept"] == "the knight rode"


def test_without_tags_and_without_a_first_ctc(data, tmp_path):
    (data / "word_tags").unlink()
    folder = decode(tmp_path)
    assert score(folder) == 0
    words = json.loads((folder / "result.json").read_text())["fusion"]["words"]
    assert words == {"all": {"fixed": 3, "broken": 2}}
    rows = [json.loads(line) for line in (folder / "nbest.jsonl").read_text().splitlines()]
    for row in rows:
        row["nbest"] = [each for each in row["nbest"] if each["source"] != "ctc"]
    (folder / "nbest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert score(folder) == 0
    fusion = json.loads((folder / "result.json").read_text())["fusion"]
    assert set(fusion["outputs"]) == {"ctc2", "ce"} and fusion["words"]["all"] == {"fixed": 0, "broken": 0}


def test_a_system_of_one_candidate_and_one_of_none(data, tmp_path):
    """As w2v-CIF-BERT has it; and a plain N-best list is no fusion."""
    one = decode(tmp_path, {u: (a, c, "ce") for u, (a, _, c, _) in HEARD.items()}, "cif", names=("ctc", "ce"))
    plain = decode(tmp_path, HEARD, "plain")
    lists = (plain / "nbest.jsonl").read_text().replace('"source": "ce"', '"source": ""')
    lists = lists.replace('"source": "ctc2"', '"source": ""').replace('"source": "ctc"', '"source": ""')
    (plain / "nbest.jsonl").write_text(lists)
    assert score(one, plain) == 0
    fusion = json.loads((one / "result.json").read_text())["fusion"]
    assert fusion["right"] == {"ce": 3, "neither": 2} and fusion["kept"] == {"ce": 5}
    assert "fusion" not in json.loads((plain / "result.json").read_text())
    assert not (plain / "fusion.tsv").exists()


def test_the_report_tells_it(data, tmp_path):
    other = {**HEARD, "s1-a": ("the night rode", "the night rode", "the night rode", "ctc2")}
    assert score(decode(tmp_path), decode(tmp_path, other, seed=2), decode(tmp_path, system="er")) == 0
    assert main(["report", "--exp", "exp", "--out", "RESULTS.md", "--plots", "false"]) == 0
    text = (tmp_path / "RESULTS.md").read_text()
    part = text.partition("### What the fusion does on test")[2].partition("## Systems")[0]
    assert part and text.count("What the fusion does") == 1
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [dict(zip(lines[0].split(" | "), line.split(" | "))) for line in lines[2:]]
    er, wavbert = cells
    assert (er["| system"], wavbert["| system"], wavbert["seeds"]) == ("| er", "| wavbert", "2")
    assert er["ctc %"] == "28.57" and er["oracle %"] == "14.29" and er["only ce right %"] == "20.00"
    assert wavbert["only ce right %"] == "10.00 ± 14.14" and wavbert["ce kept %"] == "50.00 ± 14.14"
    assert er["far fixed"] == "3.00" and "unseen broken" in lines[0]
    assert "- fixed: **knight** (far,seen), night became knight by ce, in s1-a: the knight rode" in part
    assert "- broken: **two** (near,seen), two became to by ce, in s1-b: two weeks ago" in part


def test_a_broken_list_is_named(data, tmp_path, capsys):
    folder = decode(tmp_path)
    (folder / "nbest.jsonl").write_text('{"utterance": "s1-a", "nbest": [{"words": []}]}\n')
    assert score(folder) == 1
    assert "nbest.jsonl:1: not an N-best list" in capsys.readouterr().err


def test_words_opposite_a_reference():
    assert opposite(["a", "b", "c"], ["x", "a", "c"]) == ["a", "", "c"]
    assert opposite([], ["x"]) == [] and opposite(["a"], []) == [""]
