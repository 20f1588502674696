"""A run on disk: saving it, resuming it, and its last step, the averaged model."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from speechkit.errors import InputError
from speechkit.files import hash_json, read_json
from speechkit.train import checkpoint
from speechkit.train.signals import Watchdog
from speechkit.train.state import Progress, random_state, set_random_state
from speechkit.train.telling import tell_validation

if TYPE_CHECKING:
    from speechkit.train.loop import Trainer
    from speechkit.train.run import RunConfig


def training_state(run: Trainer) -> dict:
    """What `resume` needs beside the weights; plain values and tensors only."""
    plan = run.setup.train.plan
    return {
        "progress": run.progress.to_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": random_state(),
        "plan_starts": list(plan.starts),
        "plan_hash": plan.hash(max(0, run.progress.epoch)),
        "inputs": run.setup.inputs,
        "environment": run.environment,
    }


def facts(run: Trainer) -> dict:
    """What reports say about a run, JSON-able."""
    return {
        "command": run.setup.command,
        "update": run.progress.update,
        "seed": run.config.seed,
        "config_hash": hash_json(asdict(run.config)),
        "data_hash": hash_json(run.setup.inputs),
        "inputs": run.setup.inputs,
        "git": run.revision,
        "environment": run.environment,
        "train_seconds": round(run.progress.seconds, 1),
        "best": run.progress.best,
    }


def save(run: Trainer) -> None:
    """Writes a checkpoint of the updates made so far, and removes those no longer kept."""
    if run.ranks.first:
        exp, progress, kept = run.setup.exp, run.progress, run.config.checkpoints.kept
        checkpoint.save_checkpoint(
            exp / f"step_{progress.update}",
            run.model.state_dict(),
            run.config,
            run.setup.assets,
            training=training_state(run),
            ema=run.ema.state_dict() if run.ema is not None else None,
            run=facts(run),
        )
        last = [update for update, _ in checkpoint.checkpoints(exp)][-kept[0] :]
        best = [int(entry[-1]) for entry in progress.best[: kept[1]]]
        checkpoint.prune(exp, [*last, *best])
        run.log.flush()
    run.ranks.sum([0])  # nobody goes on before it is there


def resume(run: Trainer, folder: Path) -> None:
    """Continues from a checkpoint folder.

    Raises:
        InputError: it is damaged, or the data are others.
    """
    state = checkpoint.load_state(folder)
    for name, old in state["inputs"].items():
        new = run.setup.inputs.get(name)
        if new != old:
            what = {"assets": "the tokenizer or the CMVN statistics"}.get(name, f"the {name} data")
            raise InputError(
                f"{folder}: {what} changed since this checkpoint ({old} -> {new}); "
                "put them back, or use another --exp"
            )
    checkpoint.load_strictly(run.model, folder / "model.safetensors")
    if run.ema is not None:
        run.ema.load_state_dict(checkpoint.load_weights(folder / "ema.safetensors"))
    run.optimizer.load_state_dict(state["optimizer"])
    run.progress = Progress.from_dict(state["progress"])
    plan = run.setup.train.plan
    plan.starts = state["plan_starts"]
    if plan.hash(max(0, run.progress.epoch)) != state["plan_hash"]:
        raise InputError(
            f"{folder}: the batch plan differs from the one of this checkpoint; use another --exp"
        )
    set_random_state(state["random"])
    now = run.environment
    differing = [f"{k}: {v} -> {now.get(k)}" for k, v in state["environment"].items() if v != now.get(k)]
    if differing and run.ranks.first:
        print(f"speechkit train: not bit-exact from here: {'; '.join(differing)}", file=sys.stderr)


def finish(run: Trainer, watchdog: Watchdog) -> None:
    """Averages checkpoints into final/ and validates the mean; again only when they changed."""
    final, how = run.setup.exp / "final", run.config.checkpoints
    existing = dict(checkpoint.checkpoints(run.setup.exp))
    best = [u for u in (int(entry[-1]) for entry in run.progress.best) if u in existing]
    last = sorted(existing)[-how.average_count :]
    updates = {"best": best[: how.average_count], "last": last, "none": last[-1:]}[how.average]
    report = {**facts(run), "average": {"how": how.average, "from": updates}}
    done = final / "run.json"
    if done.exists() and read_json(done).get("average", {}).get("from") == updates:
        run.log.line(f"nothing to do: {run.finished}, and {final} is complete")
        return
    own = {name: value.clone() for name, value in run.model.state_dict().items()}
    ema, run.ema = run.ema, None  # its weights are in the files that are averaged
    metrics, samples, taken = _best_mean(run, [(u, existing[u]) for u in updates], watchdog)
    tell_validation(run, metrics, samples, "final", f" (mean of updates {', '.join(map(str, taken))})")
    if run.ranks.first:
        report["dev"], report["average"]["updates"] = metrics, taken
        checkpoint.save_checkpoint(final, *_recognising(run), run.setup.assets, run=report)
    run.ema = ema
    run.model.load_state_dict(own)
    run.log.line(f"finished: {run.finished}; model in {final}")


def _recognising(run: Trainer) -> tuple[dict, RunConfig]:
    """Weights and configuration of what is decoded with: without what only serves the training."""
    weights, config = run.model.state_dict(), run.config
    if hasattr(run.model, "for_recognition"):
        model, left_out = run.model.for_recognition()
        weights = {name: value for name, value in weights.items() if not name.startswith(left_out)}
        config = replace(config, model=model)
    return weights, config


def _best_mean(
    run: Trainer, found: list[tuple[int, Path]], watchdog: Watchdog
) -> tuple[dict, list, list[int]]:
    """Puts a mean of checkpoints into the model; gives its dev metrics, samples, and updates.

    The mean of checkpoints that lie far apart, as in a short run, can be worse than each of them; so of
    the n best, half of them, and so on down to the best, what is best on the dev set is taken.
    """
    counts = [len(found)]
    while run.config.checkpoints.average == "best" and counts[-1] > 1:
        counts.append(counts[-1] // 2)
    tried = {}
    for count in counts:
        run.model.load_state_dict(checkpoint.average([folder for _, folder in found[:count]]))
        tried[count] = run.dev(watchdog)
        metrics = tried[count][0]
        run.log.line(f"mean of {count}: {run.metric} {metrics[run.metric]:.4g}, loss {metrics['loss']:.4g}")
    count = min(counts, key=lambda n: (run.rank(tried[n][0]), -n))
    run.model.load_state_dict(checkpoint.average([folder for _, folder in found[:count]]))
    return *tried[count], [update for update, _ in found[:count]]
