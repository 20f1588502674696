"""Rescoring from the command line: what is computed once, what is written down, and what is refused."""

import json
import math

import pytest
import torch
from bert_folders import SPECIAL, write_bert
from factories import WORDS
from tiny_training import World

from speechkit.bin.__main__ import main
from speechkit.config import from_dict
from speechkit.decoding import DecodeConfig
from speechkit.decoding.recognizer import Recognizer
from speechkit.decoding.timing import Stopwatch, runs_after
from speechkit.decoding.write import decode_set
from speechkit.lm.masked import MaskedLM
from speechkit.search.ctc_beam import CtcBeam

LETTERS = sorted(set("".join(WORDS)))
VOCAB = [*SPECIAL, *WORDS[:8], *LETTERS, *(f"##{letter}" for letter in LETTERS if letter != "z")]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    assert world.run("exp/tiny/seed1", loop__max_updates=4) == 0
    (world.folder / "words").write_text("\n".join(WORDS) + "\n")
    write_bert(world.folder / "bert", VOCAB)
    return world


@pytest.fixture
def exp(world):
    return world.folder / "exp/tiny/seed1"


def decode(world, exp, how, *options, data=None, lexicon=True):
    command = ["decode", "--model", str(exp), "--data", str(data or world.dev), "--how", how]
    command += ["--lexicon", str(world.folder / "words")] if lexicon else []
    return main(
        [*command, "search.name=rescore", "search.beam=60", "--bert", str(world.folder / "bert"), *options]
    )


def config(name, **options):
    return from_dict(DecodeConfig, {"search": {"name": name, "beam": 60, "nbest": 5, **options}})


def nbest(exp, how, name="dev"):
    lines = (exp / f"decode_{name}_{how}" / "nbest.jsonl").read_text().splitlines()
    return {row["utterance"]: row["nbest"] for row in map(json.loads, lines)}


@pytest.mark.parametrize("lexicon", [True, False])
def test_decoding_reorders_the_beams_lists(world, exp, lexicon):
    how = f"bert{lexicon:d}"
    assert decode(world, exp, how, "search.bert_weight=0.3", lexicon=lexicon) == 0
    recognizer = Recognizer.load(exp, config("rescore"), bert=world.folder / "bert")
    words = world.folder / "words" if lexicon else None
    beam = Recognizer.load(exp, config("ctc_beam"), lexicon=words).searcher
    score, found = recognizer.resources.masked_lm, nbest(exp, how)
    text = recognizer.resources.assets.tokenizer.decode
    _, batches = recognizer.batches(world.dev)
    for batch in batches:
        for utterance, first in zip(batch.ids, beam(recognizer.encode(batch))):
            total = {}
            for one in first:
                read = " ".join(one.words if lexicon else text(one.tokens).split())
                total[read] = total.get(read, 0) + math.exp(one.ctc)
            expected = {
                read: 0.7 * math.log(p) + 0.3 * score([read])[0].log_prob for read, p in total.items()
            }
            assert {one["text"]: one["score"] for one in found[utterance]} == pytest.approx(
                expected, abs=1e-3
            )
            scores = [one["score"] for one in found[utterance]]
            assert scores == sorted(scores, reverse=True) and len(scores) == len(total)
            assert all(one["pll"] < 0 or not one["text"] for one in found[utterance])


def test_tuning_runs_the_beam_and_bert_once_for_each_first_pass(world, exp, monkeypatch):
    searched, scored = [], []
    search, score = CtcBeam.__call__, MaskedLM.__call__
    monkeypatch.setattr(
        CtcBeam, "__call__", lambda self, *a: searched.append(self.config) or search(self, *a)
    )
    monkeypatch.setattr(MaskedLM, "__call__", lambda self, texts: scored.append(texts) or score(self, texts))
    weights = [0.0, 0.25, 0.5, 1.0]
    grid = f"grid={{bert_weight: {weights}, word_bonus: [0.0, 3.0]}}"
    options = [grid, "--tune-on", str(world.train), "seconds=1000"]
    assert decode(world, exp, "tuned", *options) == 0
    assert [config.word_bonus for config in searched[:2]] == [0.0, 3.0]
    assert len(searched) == len(scored) == 3  # two first passes on the one batch of the tuning set, then dev
    tuned = json.loads((exp / "tune_tuned.json").read_text())
    tried = [(trial["word_bonus"], trial["bert_weight"]) for trial in tuned["trials"]]
    assert tried == [(bonus, weight) for bonus in (0.0, 3.0) for weight in weights]
    record = json.loads((exp / "decode_dev_tuned/decode.json").read_text())
    chosen = {key: record["decode_config"]["search"][key] for key in ("word_bonus", "bert_weight")}
    assert chosen == tuned["chosen"]
    # A trial is what decoding with its options gives.
    for bonus, weight in (tried[1], tried[6]):
        options = [f"search.word_bonus={bonus}", f"search.bert_weight={weight}"]
        assert decode(world, exp, "one", *options, "--force", "true", data=world.train) == 0
        folder = exp / "decode_train_one"
        assert main(["score", "--data", str(world.train), str(folder)]) == 0
        result = json.loads((folder / "result.json").read_text())
        trial = tuned["trials"][tried.index((bonus, weight))]
        assert result["counts"]["errors"] == trial["errors"]
        assert result["oracle"]["counts"]["errors"] <= trial["errors"] and result["oracle"]["nbest"] <= 5


def test_the_ngrams_score_counts_where_it_is_asked_for(world, exp):
    common = ["search.word_bonus=5.0", "search.bert_weight=0.5"]
    for how in ("ctc", "beam"):
        assert decode(world, exp, how, *common, f"search.first_score={how}") == 0
    lists = {how: nbest(exp, how) for how in ("ctc", "beam")}
    for utterance, found in lists["ctc"].items():
        other = {one["text"]: one["score"] for one in lists["beam"][utterance]}
        assert {one["text"]: one["score"] + 0.5 * one["lm"] for one in found} == pytest.approx(other)
    assert len({one["lm"] for found in lists["ctc"].values() for one in found}) > 1


def test_what_is_written_down(world, exp):
    assert decode(world, exp, "record") == 0
    record = json.loads((exp / "decode_dev_record/decode.json").read_text())
    assert record["bert"] == str(world.folder / "bert") and record["units"] == "characters"
    assert 0 < record["seconds_after_encoder"] <= record["seconds_wall"]
    assert main(["score", "--data", str(world.dev), str(exp / "decode_dev_record")]) == 0
    result = json.loads((exp / "decode_dev_record/result.json").read_text())
    assert result["units"] == "characters"
    assert result["seconds_after_encoder"] == record["seconds_after_encoder"]


def test_every_set_is_timed_with_nothing_remembered(world, exp, monkeypatch):
    scored = []
    score = MaskedLM.__call__
    monkeypatch.setattr(
        MaskedLM, "__call__", lambda self, texts: scored.append(len(self.cache)) or score(self, texts)
    )
    recognizer = Recognizer.load(exp, config("rescore"), bert=world.folder / "bert")
    for _ in range(2):
        decode_set(recognizer, world.dev)
    assert scored == [0, 0]


def test_a_watch_runs_from_the_encoder_to_the_end(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Encoder(torch.nn.Module):
        def forward(self, seconds):
            now[0] += seconds

    watch, encoder = Stopwatch(torch.device("cpu")), Encoder()
    with runs_after(encoder, watch):
        for _ in range(2):
            now[0] += 100
            encoder(10.0)
            now[0] += 1
            encoder(20.0)  # a batch in two halves: only what follows an encoder counts
            now[0] += 2
            watch.start()
            now[0] += 3
            watch.stop()
    encoder(5.0)
    assert watch.seconds == 12.0
    with runs_after(None, watch):
        watch.start()
        now[0] += 1
    watch.stop()
    assert watch.seconds == 13.0


BAD = {
    "no bert": (["search.name=rescore"], "the search rescore needs --bert"),
    "bert with greedy": (
        ["--bert", "{bert}"],
        "the search ctc_greedy takes no --bert; use search.name=rescore",
    ),
    "bert with beam": (["--bert", "{bert}", "search.name=ctc_beam"], "the search ctc_beam takes no --bert"),
    "no such bert": (["--bert", "{bert}/x", "search.name=rescore"], "neither a folder nor a model"),
    "weight": (
        ["--bert", "{bert}", "search.name=rescore", "search.bert_weight=2.0"],
        "bert_weight=2.0 must be",
    ),
    "too many": (["--bert", "{bert}", "search.name=rescore", "search.nbest=6"], "nbest=6 must be in [1, 5]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_command_lines_are_named(case, world, exp, capsys):
    options, message = BAD[case]
    command = ["decode", "--model", str(exp), "--data", str(world.dev), "--how", "bad"]
    assert main([*command, *(option.format(bert=world.folder / "bert") for option in options)]) == 1
    assert message in capsys.readouterr().err
    assert not (exp / "decode_dev_bad").exists()
