"""Decoding with a neural language model (`--lm` its folder), word times, and what is refused."""

import json

import pytest
import torch
from tiny_training import World, make_tokenizer

from speechkit.bin.__main__ import main
from speechkit.config import from_dict, load_config
from speechkit.decoding import DecodeConfig, attention_beam, ctc_beam
from speechkit.decoding.recognizer import Recognizer
from speechkit.decoding.word_times import seconds_per_frame
from speechkit.errors import InputError
from speechkit.models import causal_lm
from speechkit.models.assets import Assets
from speechkit.search.greedy import Span
from speechkit.search.hypothesis import Hypothesis
from speechkit.text.tokenizer import load_tokenizer
from speechkit.train.checkpoint import save_checkpoint
from speechkit.train.run import RunConfig

ENCODER = "{name: conformer, dim: 16, layers: 1, heads: 2, feed_forward: 24, kernel: 5, dropout: 0.0}"
DECODER = "{name: las, embedding: 8, cells: 12, attention_dim: 8, kernel: 5, dropout: 0.0}"
PREDICTION = "{name: stateless, dim: 12}"
SEARCHES = {"attention": "attention_beam", "transducer": "transducer_beam"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An attention system and a transducer that learnt nothing, and a language model with opinions."""
    world = World(tmp_path_factory.mktemp("world"))
    common = {"model__encoder": ENCODER, "loop__max_updates": 2, "validation__every": 2}
    assert world.run("exp/attention", model__name="attention", model__decoder=DECODER, **common) == 0
    networks = {"model__prediction": PREDICTION, "model__joint__dim": 16}
    assert world.run("exp/transducer", model__name="transducer", **networks, **common) == 0
    save_lm(world.folder / "lm", world.tokenizer)
    return world


def save_lm(folder, tokenizer, seed=1):
    """A checkpoint of a language model with random, sharp weights."""
    config = load_config(RunConfig, model={"name": "causal_lm", "network": {"embedding": 6, "cells": 9}})
    assets = Assets(load_tokenizer(tokenizer))
    torch.manual_seed(seed)
    model = causal_lm.build(config.model, assets)
    with torch.no_grad():
        model.output.weight.mul_(20)
    save_checkpoint(folder, model.state_dict(), config, assets)


def decode(world, kind, how, *options):
    command = ["decode", "--model", str(world.folder / "exp" / kind), "--data", str(world.dev), "--how", how]
    assert main([*command, f"search.name={SEARCHES[kind]}", "search.beam=4", "search.nbest=2", *options]) == 0
    folder = world.folder / "exp" / kind / f"decode_dev_{how}"
    lines = (folder / "nbest.jsonl").read_text().splitlines()
    return folder, [json.loads(line)["nbest"] for line in lines]


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_neural_language_model_counts(world, kind):
    lm = str(world.folder / "lm")
    _, plain = decode(world, kind, "plain")
    _, none = decode(world, kind, "none", "--lm", lm, "search.lm_weight=0")
    folder, fused = decode(world, kind, "lm", "--lm", lm, "search.lm_weight=2")
    first = [[nbest[0]["tokens"] for nbest in found] for found in (plain, none, fused)]
    assert first[0] == first[1] != first[2]
    assert all(h["lm"] == pytest.approx(0) for nbest in none for h in nbest)
    assert any(h["lm"] < -1 for nbest in fused for h in nbest)
    record = json.loads((folder / "decode.json").read_text())
    assert record["lm"] == lm and record["nothing_found"] == 0
    assert record["unfinished"] == sum(not nbest[0]["complete"] for nbest in fused)


def test_batches_and_language_models_do_not_meet(world):
    found = [
        decode(world, "transducer", how, "--lm", str(world.folder / "lm"), f"seconds={seconds}")[1]
        for how, seconds in (("one", 1), ("all", 100))
    ]
    assert [[h["tokens"] for h in nbest] for nbest in found[0]] == [
        [h["tokens"] for h in nbest] for nbest in found[1]
    ]


def test_a_language_model_that_was_trained_again_is_read_again(world, capsys):
    options = ("--lm", str(world.folder / "again"), "search.lm_weight=3")
    save_lm(world.folder / "again", world.tokenizer)
    _, before = decode(world, "attention", "again", *options)
    decode(world, "attention", "again", *options)
    assert "is up to date" in capsys.readouterr().err
    save_lm(world.folder / "again", world.tokenizer, seed=5)
    _, after = decode(world, "attention", "again", *options)
    assert [n[0]["lm"] for n in before] != [n[0]["lm"] for n in after]


def test_when_words_were_said(world):
    folder, found = decode(world, "transducer", "times", "search.token_bonus=3")
    recognizer = Recognizer.load(world.folder / "exp/transducer")
    seconds = seconds_per_frame(recognizer)
    assert seconds == pytest.approx(0.04)
    rows = [line.split() for line in (folder / "ctm").read_text().splitlines()]
    texts = dict(line.partition(" ")[::2] for line in (folder / "text").read_text().splitlines())
    assert any(texts.values())
    for utterance, text in texts.items():
        own = [row for row in rows if row[0] == utterance]
        assert [row[4] for row in own] == text.split() and all(row[1] == "1" for row in own)
        starts = [float(row[2]) for row in own]
        assert starts == sorted(starts) and all(float(row[3]) > 0 for row in own)
    utterance = next(u for u, text in texts.items() if text)
    (nbest,) = (n for n, u in zip(found, sorted(texts)) if u == utterance)
    first = next(
        span for span in nbest[0]["spans"] if recognizer.resources.assets.tokenizer.vocab[span[0]] != "▁"
    )
    assert float(next(row for row in rows if row[0] == utterance)[2]) == pytest.approx(first[1] * seconds)


def test_no_times_are_made_up(world):
    folder, _ = decode(world, "attention", "untimed")
    assert not (folder / "ctm").exists()


def test_what_does_not_fit_is_refused(world, tmp_path):
    exp, config = world.folder / "exp/attention", DecodeConfig(search=attention_beam.Config())
    save_lm(tmp_path / "lm", make_tokenizer(tmp_path / "tokens", ["other letters"]))
    with pytest.raises(InputError, match="tokens are not the recogniser's"):
        Recognizer.load(exp, config, lm=tmp_path / "lm")
    with pytest.raises(InputError, match="a model of kind attention, not causal_lm"):
        Recognizer.load(exp, config, lm=exp)
    with pytest.raises(InputError, match="takes an n-gram model in ARPA format"):
        Recognizer.load(exp, DecodeConfig(search=ctc_beam.Config()), lm=world.folder / "lm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no trained model"):
        Recognizer.load(exp, config, lm=tmp_path / "empty")


def test_words_of_a_lexicon_that_tokens_do_not_spell_have_no_times(world):
    from speechkit.decoding.word_times import ctm_lines

    recognizer = Recognizer.load(world.folder / "exp/attention", from_dict(DecodeConfig, {}))
    ids = recognizer.resources.assets.tokenizer.encode("one")
    spans = [Span(token, i, i + 1) for i, token in enumerate(ids)]
    same, other = (Hypothesis(ids, [word], 0.0, 0.0, 0.0, spans=spans) for word in ("one", "won"))
    assert ctm_lines("u", same, recognizer, 0.5) == ["u 1 0.000 1.500 one\n"]
    assert ctm_lines("u", other, recognizer, 0.5) is None
