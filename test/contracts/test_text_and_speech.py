"""Contracts of text beside speech: exact resume, ranks, accumulation, one pass over the text an epoch."""

from __future__ import annotations

import pytest
import torch
from tiny_text import TextWorld, TinyText
from tiny_training import on_ranks, rows, weights

from speechkit.config import load_config
from speechkit.data.plan import BatchPlan
from speechkit.train.distributed import Ranks
from speechkit.train.run import RunConfig
from speechkit.train.setup import load_assets, prepare

STOPPED = 75


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> TextWorld:
    return TextWorld(tmp_path_factory.mktemp("world"))


def setup(world, *overrides):
    values = ["model.name=tiny_text", "plan.seconds=2.5", "plan.text.tokens=90", *overrides]
    assets = load_assets(world.tokenizer, None)
    folders = [[world.train, world.texts], [world.dev, world.dev_texts]]
    return prepare(load_config(RunConfig, None, values), world.folder / "x", Ranks(), assets, *folders)


@pytest.mark.parametrize("every", [1, 3])
def test_a_stopped_run_goes_on_to_the_last_bit(world, every):
    """Stopped in the middle of an epoch of the speech and of another one of the text."""
    options = {"plan__text__every": every, "plan__text__micro_batches": 2}
    whole, parts = f"whole{every}", f"parts{every}"
    assert world.run(whole, **options) == 0
    assert world.run(parts, **options, model__misbehave="SIGTERM:4") == STOPPED
    assert rows(world.folder / parts, "train")[-1]["update"] == 5
    assert world.run(parts, **options, model__misbehave="SIGTERM:4") == 0
    for folder in ("step_12", "final"):
        a, b = (weights(world.folder / exp / folder) for exp in (whole, parts))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert rows(world.folder / whole) == rows(world.folder / parts)
    for row in rows(world.folder / whole, "train"):
        with_text = (row["update"] - 1) % every == 0
        assert ("text_tokens" in row) == with_text and (row["loss_lm"] > 0) == with_text
        assert row["audio_seconds"] > 0 and row["loss_ctc"] > 0
        assert row["loss"] == pytest.approx(row["loss_ctc"] + 0.5 * row["loss_lm"])


def test_two_ranks_make_the_updates_of_one(world, tmp_path):
    options = {"plan__micro_batches": 2, "plan__text__micro_batches": 2, "plan__text__tokens": 60}
    assert world.run("one", **options) == 0
    statuses = on_ranks(2, lambda: world.run("two", **options), tmp_path / "log")
    assert statuses == [0, 0], (tmp_path / "log.0").read_text()
    one, two = (weights(world.folder / exp / "step_12") for exp in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=0)
    for a, b in zip(rows(world.folder / "one", "dev"), rows(world.folder / "two", "dev"), strict=True):
        assert a.keys() == b.keys() and "loss_lm" in a and "wer" in a
        assert all(a[key] == pytest.approx(b[key], rel=1e-5) for key in a.keys() - {"kind"})


def test_every_batch_is_of_one_kind_and_every_sentence_comes_once(world):
    data = setup(world, "plan.text.every=2", "plan.text.micro_batches=2").train
    speech, text = data.plan.parts
    seen = []
    for update in range(2 * text.updates(0)):
        parts = data.plan.row(update)
        units = [part.unit for part in parts]
        assert units == ["tokens"] * (2 if update % 2 == 0 else 0) + ["seconds"]
        for part in parts:
            batch = data.reader(part).batch
            assert set(batch.fields) == ({"tokens"} if part.unit == "tokens" else {"features", "tokens"})
            if part.unit == "tokens":
                assert part.length == int(batch["tokens"].lengths.sum())
                assert len(batch) == 1 or batch["tokens"].values.numel() <= 90
                assert part.padded == batch["tokens"].values.numel()
                seen += batch.ids
    assert sorted(seen) == sorted(data.texts.ids[i] for i in range(len(data.texts))) and len(seen) == 30
    assert [part.utterances.tolist() for part in data.plan.row(0)[2:]] == [
        part.utterances.tolist() for part in speech.row(0)
    ]


def test_the_plan_is_sought_without_walking(world, monkeypatch):
    data, far = setup(world).train, 400
    expected = data.plan.row(far)
    starts = data.plan.starts
    assert all(len(part) > 20 for part in starts)
    again = setup(world).train.plan
    planned = []
    real = BatchPlan._plan
    monkeypatch.setattr(BatchPlan, "_plan", lambda self, n: planned.append(n) or real(self, n))
    again.starts = starts
    for a, b in zip(again.row(far), expected, strict=True):
        assert a.utterances.tolist() == b.utterances.tolist() and a.keys.tolist() == b.keys.tolist()
    assert len(planned) == 2, "one epoch of the speech and one of the text"
    assert again.hash(3) == data.plan.hash(3) != data.plan.hash(4)


def test_the_sentences_are_part_of_what_a_resume_compares(world):
    one = setup(world)
    other = setup(world, "plan.text.min_tokens=12", "data.max_dropped=0.9")  # fewer sentences
    assert one.inputs["train"] != other.inputs["train"] and one.inputs["dev"] == other.inputs["dev"]
    assert one.train.plan.hash(0) != other.train.plan.hash(0)
    assert one.train.size == 12 + 30 and other.train.size < one.train.size


def test_the_gradient_is_that_of_both_terms_over_the_whole_update(world):
    """Against autograd on the formula, from two micro-batches of text and two of speech."""
    made = setup(world, "plan.micro_batches=2", "plan.text.micro_batches=2", "plan.text.tokens=60")
    from speechkit.train.update import Updater

    model = made.model
    assert isinstance(model, TinyText)
    model.dropout.p = 0.0
    step = Updater(model, torch.optim.SGD(model.parameters(), lr=0.0), Ranks(), ["ctc", "lm"], seed=1)
    batches = [made.train.reader(part).batch for part in made.train.plan.row(0)]
    assert [("features" in batch) for batch in batches] == [False, False, True, True]
    outcome = step(batches, step.counts(batches), 0)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    sums = {"ctc": 0.0, "lm": 0.0}
    counts = dict.fromkeys(sums, 0)
    for batch in batches:
        for term, (value, count) in model.loss(batch, 0).items():
            sums[term], counts[term] = sums[term] + value, counts[term] + count
    model.zero_grad()
    (sums["ctc"] / counts["ctc"] + 0.5 * sums["lm"] / counts["lm"]).backward()
    assert outcome.counts == [counts["ctc"], counts["lm"]]
    assert outcome.sums == pytest.approx([float(sums[k].detach()) for k in ("ctc", "lm")], rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_a_run_stops_when_a_dev_value_is_reached_and_goes_on_for_a_better_one(world, capfd):
    options = {"schedule__name": "constant", "checkpoints__average": "none"}
    assert world.run("stops", **options, validation__stop_at="{loss: 1000, loss_lm: 1000}") == 0
    exp = world.folder / "stops"
    assert [row["update"] for row in rows(exp, "dev")] == [4] and (exp / "final").exists()
    assert "finished: reached loss" in capfd.readouterr().err
    assert world.run("stops", **options, validation__stop_at="{loss: 1000, loss_lm: 1000}") == 0
    assert "stops/final is up to date" in capfd.readouterr().err
    assert world.run("stops", **options, validation__stop_at="{loss: 0.0}") == 0
    assert world.run("never", **options) == 0
    one, other = (weights(world.folder / name / "step_12") for name in ("stops", "never"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_sentences_it_is_the_run_of_before(world):
    """Text sets change nothing of the order of the speech."""
    alone = BatchPlan(*_arguments(setup(world).train.plan.parts[0]))
    for update in range(10):
        (a,), (_, b) = alone.row(update), setup(world).train.plan.row(update)
        assert a.utterances.tolist() == b.utterances.tolist() and a.keys.tolist() == b.keys.tolist()


def _arguments(plan):
    return plan.ids, plan.seconds, plan.config, plan.seed
