"""Contracts about equal results (R6, R7, R8, R14): workers, ranks, accumulation, order."""

from __future__ import annotations

import os

import pytest
import torch
from tiny_training import World, on_ranks, rows, weights

from speechkit.config import load_config
from speechkit.data.batch import Batch, pad
from speechkit.data.dataset import Config as DataConfig
from speechkit.data.dataset import read_ahead
from speechkit.data.plan import BatchPlan, MicroBatch
from speechkit.train.distributed import Ranks
from speechkit.train.run import RunConfig
from speechkit.train.setup import load_assets, prepare
from speechkit.train.update import Updater


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def setup(world, *overrides):
    config = load_config(RunConfig, None, ["model.name=tiny", "plan.seconds=3", *overrides])
    return prepare(
        config, world.folder / "x", Ranks(), load_assets(world.tokenizer, None), [world.train], [world.dev]
    )


AUGMENT = ("augment.speeds=[0.9,1.0,1.1]", "augment.gain.probability=0.9", "augment.reverb.probability=0.5")


def test_r6_an_utterance_is_augmented_by_its_key_alone(world):
    """Alone, in its batch, or read by another process: the same samples; in another epoch: others."""
    data = setup(world, *AUGMENT).train
    plan = [data.plan.row(update)[0] for update in range(data.plan.updates(0))]
    together = [data.reader(micro_batch).batch for micro_batch in plan]
    for micro_batch, batch in zip(plan, together):
        for i in range(len(batch)):
            one = MicroBatch(
                0, *(getattr(micro_batch, n)[i : i + 1] for n in ("utterances", "speeds", "keys")), 0, 0
            )
            alone = data.reader(one).batch
            length = int(alone["features"].lengths[0])
            assert length == int(batch["features"].lengths[i]) and alone.ids == [batch.ids[i]]
            assert torch.equal(alone["features"].values[0], batch["features"].values[i, :length])
    for workers in (0, 2):
        read = list(read_ahead(data.reader, plan, DataConfig(workers=workers, ahead=2)))
        for loaded, batch in zip(read, together, strict=True):
            assert loaded.batch.ids == batch.ids and torch.equal(loaded.batch.keys, batch.keys)
            assert torch.equal(loaded.batch["features"].values, batch["features"].values)
            assert torch.equal(loaded.batch["tokens"].values, batch["tokens"].values)
    later = [data.plan.row(update)[0] for update in range(data.plan.starts[-1], data.plan.starts[-1] + 3)]
    first_keys = {key for micro_batch in plan for key in micro_batch.keys.tolist()}
    later = [data.plan.row(u)[0] for u in range(data.plan.updates(0), data.plan.updates(0) + 3)]
    assert not first_keys & {key for micro_batch in later for key in micro_batch.keys.tolist()}


def test_r6_training_is_the_same_with_loading_processes(world):
    assert world.run("thread", augment__speeds="[0.9,1.0,1.1]") == 0
    assert world.run("processes", augment__speeds="[0.9,1.0,1.1]", data__workers=2) == 0
    a, b = (weights(world.folder / exp / "final") for exp in ("thread", "processes"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_r7_ranks_share_the_updates_of_one_rank(world, tmp_path):
    """The same global micro-batches on 1, 2 and 4 ranks: weights equal to 1e-6, metrics too."""
    options = {"plan__micro_batches": 4, "plan__seconds": 1.5}
    assert world.run("ranks1", **options) == 0
    one = weights(world.folder / "ranks1/step_12")
    for ranks in (2, 4):
        exp = f"ranks{ranks}"
        statuses = on_ranks(ranks, lambda exp=exp: world.run(exp, **options), tmp_path / exp)
        assert statuses == [0] * ranks, (tmp_path / f"{exp}.0").read_text()
        other = weights(world.folder / exp / "step_12")
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=0)
        for a, b in zip(rows(world.folder / "ranks1"), rows(world.folder / exp), strict=True):
            assert a.keys() == b.keys()
            for key in a:
                assert a[key] == (b[key] if isinstance(b[key], str) else pytest.approx(b[key], rel=1e-5)), key


def test_r8_the_plan_is_logged_and_sought_without_walking(world, monkeypatch):
    assert world.run("plans") == 0
    logged = [(row["epoch"], row["plan"], row["updates"]) for row in rows(world.folder / "plans", "epoch")]
    data = setup(world, "plan.seconds=2.5").train
    assert [e for e, _, _ in logged] == list(range(len(logged))) and len(logged) >= 3
    assert logged == [(e, data.plan.hash(e), data.plan.updates(e)) for e, _, _ in logged]

    planned = []
    real = BatchPlan._plan
    monkeypatch.setattr(BatchPlan, "_plan", lambda self, n: planned.append(n) or real(self, n))
    far = 300
    direct = BatchPlan(data.plan.ids, data.plan.seconds, data.plan.config, 1)
    expected = direct.row(far)
    epochs = len(planned)
    assert epochs > 50
    planned.clear()
    resumed = BatchPlan(data.plan.ids, data.plan.seconds, data.plan.config, 1, starts=direct.starts)
    for a, b in zip(resumed.row(far), expected, strict=True):
        assert a.utterances.tolist() == b.utterances.tolist() and a.keys.tolist() == b.keys.tolist()
    assert len(planned) <= 2, "only the epoch that the update is in"


class Sums(torch.nn.Module):
    """Two terms with different normalisers over unequal lengths."""

    requires, inputs = ("x",), ("x",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.layer = torch.nn.Linear(3, 4)
        self.weights = {"frames": 0.7, "utterances": 2.0}

    def counts(self, batch):
        return {"frames": int(batch["x"].lengths.sum()), "utterances": len(batch), "logged": 1}

    def loss(self, batch, update):
        inside = torch.arange(batch["x"].values.shape[1]) < batch["x"].lengths[:, None]
        y = self.layer(batch["x"].values).pow(2).sum(-1) * inside
        per_utterance = y.amax(1).exp().log1p().sum()
        counts = self.counts(batch)
        return {
            "frames": (y.sum(), counts["frames"]),
            "utterances": (per_utterance, len(batch)),
            "logged": (y.sum(), 1),
        }


def updater(model, ranks=None):
    ranks = ranks or Ranks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return Updater(model, optimizer, ranks, ["frames", "logged", "utterances"], seed=1)


def batches():
    draw = torch.Generator().manual_seed(2)
    rows = [torch.randn(n, 3, generator=draw) for n in (7, 1, 4, 12, 3, 9, 2, 5)]
    parts = [rows[:3], rows[3:4], rows[4:6], rows[6:]]
    return [
        Batch([str(i) for i in range(len(p))], torch.arange(len(p)), None, {"x": pad(p)})
        for p in (*parts, rows)
    ]


def test_r14_four_small_batches_equal_one_big_one():
    *small, big = batches()
    results = []
    for window in (small, [big]):
        model = Sums()
        step = updater(model)
        outcome = step(window, step.counts(window), 0)
        results.append((outcome, [p.grad.clone() for p in model.parameters()], list(model.parameters())))
    (one, grads, after), (other, other_grads, other_after) = results
    assert one.counts[0] == other.counts[0] == 43 and one.counts[2] == 8
    for a, b in zip([*grads, *after], [*other_grads, *other_after]):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    assert one.sums[0] == pytest.approx(other.sums[0], rel=1e-6) and one.norm == pytest.approx(
        other.norm, rel=1e-6
    )
    # and the gradient is that of the formula, taken apart from all this
    model = Sums()
    losses = model.loss(big, 0)
    (0.7 * losses["frames"][0] / 43 + 2.0 * losses["utterances"][0] / 8).backward()
    for parameter, grad in zip(model.parameters(), grads):
        torch.testing.assert_close(parameter.grad, grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("distributed", ["flat", "ddp"])
def test_r14_also_on_two_ranks(distributed, tmp_path):
    *small, big = batches()

    def run():
        from speechkit.train import distributed as processes

        ranks = processes.start(60, "cpu")
        mine = small[ranks.rank :: 2]
        model = Sums()
        step = updater(model, ranks)
        if distributed == "ddp":
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            step = Updater(model, optimizer, ranks, step.terms, seed=1, ddp=True)
        counts = [int(c) for c in ranks.sum(step.counts(mine))]
        outcome = step(mine, counts, 0)
        torch.save(
            [outcome.sums, [p.detach() for p in model.parameters()]], tmp_path / f"{os.environ['RANK']}.pt"
        )
        step.close()
        processes.finish()

    assert on_ranks(2, run, tmp_path / "log") == [0, 0], (tmp_path / "log.0").read_text()
    model = Sums()
    step = updater(model)
    outcome = step([big], step.counts([big]), 0)
    for rank in (0, 1):
        sums, parameters = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert sums[0] == pytest.approx(outcome.sums[0], rel=1e-6)
        for a, b in zip(parameters, model.parameters()):
            torch.testing.assert_close(a, b.detach(), atol=1e-6, rtol=1e-6)
