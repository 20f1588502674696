"""Neural language models: the loss by hand, steps against whole sequences, that they learn, and training."""

from __future__ import annotations

import json
import math

import pytest
import torch
from factories import write_table
from language_models import make_lm, sentence_log_prob
from tiny_training import make_tokenizer

from speechkit.bin.__main__ import main
from speechkit.config import from_dict
from speechkit.data.batch import Batch, pad
from speechkit.errors import InputError
from speechkit.models import causal_lm
from speechkit.models.assets import Assets
from speechkit.text.tokenizer import load_tokenizer
from speechkit.train.checkpoint import load_model

NETWORKS = ["lstm", "stateless", "transformer"]
SENTENCES = [[2, 3, 1], [], [4, 4, 2, 1, 3], [1]]


def make_batch(sentences, filler=0):
    rows = [torch.tensor(row, dtype=torch.int64) for row in sentences]
    keys = torch.arange(len(rows))
    return Batch([f"u{i}" for i in range(len(rows))], keys, None, {"tokens": pad(rows, filler)})


@pytest.mark.parametrize("network", NETWORKS)
def test_the_loss_is_the_sum_over_tokens_and_ends(network):
    model = make_lm(6, network)
    batch = make_batch(SENTENCES)
    total, count = model.loss(batch, 0)["lm"]
    wanted = -sum(sentence_log_prob(model, row) for row in SENTENCES)
    assert float(total.detach()) == pytest.approx(wanted, abs=1e-9)
    assert count == model.counts(batch)["lm"] == 9 + 4
    right, among = model.loss(batch, 0)["accuracy"]
    assert among == 13 and 0 <= int(right) <= 13
    other = model.loss(make_batch(SENTENCES, filler=3), 0)
    assert float(other["lm"][0].detach()) == float(total.detach()) and int(other["accuracy"][0]) == int(right)
    assert model.derive({"lm": math.log(7.0)})["perplexity"] == pytest.approx(7.0)


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_token_by_token_says_what_all_at_once_says(network):
    """Hypotheses that change places and are doubled on the way."""
    model = make_lm(6, network)
    lm = model.for_search()
    log_probs, memory = lm.start(2)
    said, scores = [[], []], torch.zeros(2, dtype=torch.float64)
    for rows, tokens in (([1, 0, 1], [2, 3, 4]), ([2, 2, 0], [1, 5, 2]), ([1, 2], [4, 3]), ([1, 0], [0, 2])):
        rows, tokens = torch.tensor(rows), torch.tensor(tokens)
        scores = scores[rows] + log_probs[rows].gather(1, tokens[:, None])[:, 0]
        said = [[*said[row], token] for row, token in zip(rows.tolist(), tokens.tolist())]
        log_probs, memory = lm.step(tokens, tuple(part.index_select(0, rows) for part in memory))
        for row, score, last in zip(said, scores, log_probs):
            assert float(score) == pytest.approx(sentence_log_prob(model, row, end=False), abs=1e-9)
            whole = sentence_log_prob(model, row) - float(score)
            assert float(last[lm.eos]) == pytest.approx(whole, abs=1e-9)
            assert float(last.exp().sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "sizes",
    [
        {"name": "lstm", "embedding": 8, "cells": 16},
        {"name": "transformer", "dim": 16, "layers": 1, "heads": 2, "feed_forward": 16, "context": 3},
    ],
)
def test_it_learns_what_follows(sizes):
    """A language in which each token is followed by the next one, and the fourth by the end."""
    torch.manual_seed(0)
    config = {"network": {**sizes, "dropout": 0.0}, "dropout": 0.0}
    model = causal_lm.CausalLm(from_dict(causal_lm.Config, config), Tokens)
    batch = make_batch([[1, 2, 3, 4], [3, 4], [2, 3, 4], [4]])
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for update in range(150):
        total, count = model.loss(batch, update)["lm"]
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
    # what comes first is one of four: 4 ln 4 nats in all, and the rest is certain
    assert float(total.detach()) == pytest.approx(4 * math.log(4), abs=0.1)
    log_probs, _ = model.for_search().start(1)
    assert log_probs.exp()[0, 1:5].tolist() == pytest.approx([0.25] * 4, abs=0.02)


class Tokens:
    """Six, the last one <sos/eos>."""

    vocab, eos = list("_abcd."), 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model trained for a moment on sentences, with a data directory of text alone as its dev set."""
    folder = tmp_path_factory.mktemp("lm")
    texts = ["one two", "two three one", "six", "nine one one", "three"]
    for name, count in (("train", 20), ("dev", 5)):
        write_table(folder / name / "text", {f"s{i:02d}": texts[i % 5] for i in range(count)})
    tokenizer = make_tokenizer(folder / "tokens")
    command = ["train", "--train", folder / "train", "--dev", folder / "dev", "--exp", folder / "exp"]
    options = {"model.name": "causal_lm", "model.network.cells": 24, "model.network.embedding": 12}
    options |= {"loop.max_updates": 30, "validation.every": 15, "optim.lr": 0.02, "loop.tensorboard": "false"}
    options |= {"loop.precision": "fp32", "plan.text.tokens": 100}
    command += ["--tokenizer", tokenizer, *(f"{key}={value}" for key, value in options.items())]
    assert main([*map(str, command)]) == 0
    return folder


def test_training_reports_the_perplexity_of_the_dev_set(trained):
    rows = [json.loads(line) for line in (trained / "exp/metrics.jsonl").read_text().splitlines()]
    dev = [row for row in rows if row["kind"] == "dev"]
    assert [row["perplexity"] for row in dev] == pytest.approx([math.exp(row["loss_lm"]) for row in dev])
    assert dev[-1]["perplexity"] < dev[0]["perplexity"] < len(load_tokenizer(trained / "tokens"))
    model, _, assets = load_model(trained / "exp")
    text = (trained / "dev/text").read_text().splitlines()
    sentences = [assets.tokenizer.encode(line.partition(" ")[2]) for line in text]
    total = sum(sentence_log_prob(model, row) for row in sentences)
    mean = -total / sum(len(row) + 1 for row in sentences)
    assert mean == pytest.approx(min(row["loss_lm"] for row in dev), abs=0.2)  # final/ is an average


def test_a_tokenizer_is_needed(trained, capsys):
    with pytest.raises(InputError, match="needs a tokenizer"):
        causal_lm.build(causal_lm.Config(), Assets())
    command = ["train", "--train", trained / "train", "--dev", trained / "dev", "--exp", trained / "none"]
    assert main([*map(str, command), "model.name=causal_lm"]) == 1
    assert "give --tokenizer" in capsys.readouterr().err
