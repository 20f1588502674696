"""`nbest.jsonl` where nothing is recognised: plain JSON, and read back as it was."""

import json
import math

import pytest
from fusion_checkpoints import make_checkpoint
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.errors import InputError
from speechkit.metrics.nbest import SCORES, read_nbest, write_nbest
from speechkit.train.checkpoint import load_weights, save_weights

SMALL = ("heads=2", "feed_forward=24")
WAVBERT = [f"{part}.{o}" for part in ("embedding_attention", "aggregation") for o in SMALL]


def refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def strictly(path):
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def silence(checkpoint):
    """Makes CTC say nothing but blanks."""
    weights = load_weights(checkpoint / "model.safetensors")
    weights["head.bias"][0] = 1e3
    if "head2.bias" in weights:
        weights["head2.bias"][0] = 1e3
    save_weights(checkpoint / "model.safetensors", weights)


@pytest.mark.parametrize(
    ("kind", "search", "options"),
    [
        ("wavbert", "fused", WAVBERT),
        ("adapter_bert", "mask_predict", [f"adapters.{o}" for o in SMALL]),
    ],
)
def test_utterances_of_which_nothing_is_recognised(tmp_path, kind, search, options, capsys):
    data = make_dump(tmp_path / "dump" / "test", 3, texts=["the cat", "a dog", "the dog sat"])
    final, _ = make_checkpoint(tmp_path / "exp" / kind / "seed1", kind, *options)
    silence(final)
    command = ["decode", "--model", str(final.parent), "--data", str(data), "--how", "silent"]
    assert main([*command, f"search.name={search}"]) == 0
    folder = final.parent / "decode_test_silent"
    rows = strictly(folder / "nbest.jsonl")
    assert len(rows) == 3 and all(row["nbest"][0]["text"] == "" for row in rows)
    unsaid = [(row["utterance"], i) for row in rows for i, h in enumerate(row["nbest"]) if h["score"] is None]
    assert len(unsaid) >= 3
    lists = read_nbest(folder / "nbest.jsonl")
    assert all(lists[utterance][i]["score"] == -math.inf for utterance, i in unsaid)
    assert main(["score", "--data", str(data), str(folder)]) == 0
    assert "WER 100.00" in capsys.readouterr().out
    assert json.loads((folder / "result.json").read_text(), parse_constant=refuse)["set"] == "test"


def test_what_is_not_finite_is_null_and_only_scores_come_back_as_infinity(tmp_path):
    finite = {"text": "a", "tokens": [1], "score": -1.5, "ctc": -1.0, "lm": -0.5, "pll": None, "spans": []}
    nothing = {**finite, "text": "", "tokens": [], **dict.fromkeys(SCORES, -math.inf)}
    path = tmp_path / "nbest.jsonl"
    write_nbest(path, [("u1", [finite, nothing]), ("u2", []), ("u3", [{**finite, "lm": math.nan}])])
    rows = strictly(path)
    assert [row["utterance"] for row in rows] == ["u1", "u2", "u3"]
    assert rows[0]["nbest"][0] == finite and rows[0]["nbest"][1]["score"] is None
    assert read_nbest(path) == {"u1": [finite, nothing], "u2": [], "u3": [{**finite, "lm": -math.inf}]}


def test_files_with_pythons_own_infinity_are_still_read(tmp_path):
    path = tmp_path / "nbest.jsonl"
    path.write_text('{"utterance": "u", "nbest": [{"text": "", "score": -Infinity}]}\n')
    assert read_nbest(path)["u"] == [{"text": "", "score": -math.inf}]
    for line in ('{"utterance": "u", "nbest": ["a"]}', '{"utterance": "u", "nbest": [null]}', "[]"):
        path.write_text(line + "\n")
        with pytest.raises(InputError, match="nbest.jsonl:1: not an N-best list"):
            read_nbest(path)
