"""The search `fused` on the heads of tiny systems: who is kept, and what stands beside."""

import json

import pytest
import torch
from fusion_checkpoints import make_checkpoint
from fusion_models import make_model
from tiny_linguistic import make_batch, shake
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.decoding import fused
from speechkit.decoding.resources import Resources
from speechkit.models import embedding_replacement, wavbert
from speechkit.models.assets import Assets
from speechkit.search.greedy import ctc_greedy

FUSION = ("heads=2", "feed_forward=24")
WAVBERT = [f"{part}.{o}" for part in ("embedding_attention", "aggregation") for o in FUSION]
REPLACED = [f"{part}.{o}" for part in ("replacement", "aggregation") for o in FUSION]
REPLACED += ["replacement.max_len=9"]


def search(model, **options):
    return fused.build(fused.Config(**options), Resources(model, Assets(model.units.tokenizer)))


@pytest.mark.parametrize(
    ("module", "options", "acoustic"),
    [
        (wavbert, WAVBERT, "ctc2"),
        (embedding_replacement, REPLACED, "hpos"),
        (embedding_replacement, [*REPLACED, "er_acoustic=ha"], "ctc2"),
    ],
)
def test_all_outputs_are_listed_and_the_first_ctc_is_no_candidate(tmp_path, module, options, acoustic):
    model = shake(make_model(module, tmp_path, *options), 0.4).eval()
    with torch.no_grad():
        heads = model.encode(make_batch(model))
        texts = model.recognise(heads)
    lists = search(model)(heads)
    assert [" ".join(nbest[0].words) for nbest in lists] == texts[""]
    for row, nbest in enumerate(lists):
        assert [each.candidate for each in nbest] == [True, True, False]
        assert {each.source for each in nbest[:2]} == {acoustic, "ce"} and nbest[2].source == "ctc"
        for each in nbest:
            assert " ".join(each.words) == texts[each.source][row]
        assert nbest[2].tokens == ctc_greedy(*heads["ctc"])[row]
        # The surer one first; a tie goes to the acoustic side.
        assert nbest[0].score > nbest[1].score or nbest[0].source == acoustic
    always = {name: search(model, select=name)(heads) for name in ("ctc2", "ce")}
    assert {nbest[0].source for nbest in always["ctc2"]} == {acoustic}
    assert {nbest[0].source for nbest in always["ce"]} == {"ce"}


def test_one_branch_is_the_only_candidate(tmp_path):
    model = make_model(wavbert, tmp_path, *WAVBERT, "aggregation.branches=linguistic_guided").eval()
    with torch.no_grad():
        lists = search(model)(model.encode(make_batch(model)))
    assert all([each.source for each in nbest] == ["ce", "ctc"] for nbest in lists)


def test_a_decoded_directory_is_scored_with_what_the_fusion_did(tmp_path, capsys):
    data = make_dump(tmp_path / "dump" / "test", 3, texts=["the cat", "a dog", "the dog sat"])
    final, _ = make_checkpoint(tmp_path / "exp" / "er" / "seed1", "embedding_replacement", *REPLACED)
    words = ["decode", "--model", str(final.parent), "--data", str(data), "--how", "fused"]
    assert main([*words, "search.name=fused"]) == 0
    folder = final.parent / "decode_test_fused"
    rows = [json.loads(line) for line in (folder / "nbest.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["nbest"][-1]["candidate"] is False for row in rows)
    assert main(["score", "--data", str(data), str(folder)]) == 0
    fusion = json.loads((folder / "result.json").read_text())["fusion"]
    assert fusion["utterances"] == 3 and set(fusion["outputs"]) == {"ctc", "hpos", "ce"}
    assert "%FUSION right: " in capsys.readouterr().out
