"""R12: what is scored is the whole set: hypothesis ids equal reference ids, or scoring fails."""

import json

import pytest
from factories import make_data_dir

from speechkit.bin.__main__ import main


@pytest.fixture
def places(tmp_path):
    data = make_data_dir(tmp_path / "test", 4)
    decode = tmp_path / "exp/ctc/seed1/decode_test_greedy"
    decode.mkdir(parents=True)
    return data, decode, (data / "text").read_text().splitlines(keepends=True)


def test_r12_a_lost_hypothesis_fails_scoring_unless_asked_for(places, capsys):
    data, decode, lines = places
    (decode / "text").write_text("".join(lines[:-1]))
    lost = lines[-1].split()[0]
    assert main(["score", "--data", str(data), str(decode)]) == 1
    assert lost in capsys.readouterr().err
    assert not (decode / "result.json").exists() and not (decode / "wer").exists()
    assert main(["score", "--data", str(data), str(decode), "--missing-as-deletions", "true"]) == 0
    counts = json.loads((decode / "result.json").read_text())["counts"]
    assert counts["del"] == len(lines[-1].split()) - 1 and counts["sub"] == counts["ins"] == 0


def test_r12_a_hypothesis_without_reference_fails_scoring(places, capsys):
    data, decode, lines = places
    (decode / "text").write_text("".join([*lines, "zzz-stray one two\n"]))
    assert main(["score", "--data", str(data), str(decode)]) == 1
    assert "zzz-stray" in capsys.readouterr().err and not (decode / "result.json").exists()
