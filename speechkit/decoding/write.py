"""A decoded data directory: text, N-best list and the record of how it was made."""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

from speechkit.config import to_dict
from speechkit.decoding.recognizer import Recognizer
from speechkit.decoding.timing import Stopwatch, runs_after
from speechkit.decoding.word_times import write_ctm
from speechkit.errors import InputError
from speechkit.files import atomic_folder, hash_json, write_json, write_text
from speechkit.metrics.environment import environment
from speechkit.metrics.nbest import write_nbest
from speechkit.search.hypothesis import Hypothesis
from speechkit.text.tokenizer import UNITS


def decode_set(recognizer: Recognizer, folder: Path) -> tuple[dict[str, list[Hypothesis]], dict]:
    """Recognises every utterance of a data directory.

    Returns:
        N-best lists by utterance, and `{"seconds_audio", "seconds_wall", "seconds_after_encoder",
        "unfinished", "nothing_found", "data_hash"}`; the time after the encoder is all that follows
        `model.encoder` (or, in a model that has none, `model.encode`) until the hypotheses of a batch are
        there; counted are utterances whose best hypothesis did not end, and those without any hypothesis.
    """
    recognizer.resources.forget()
    watch = Stopwatch(recognizer.device)
    begin = time.monotonic()
    manifest, batches = recognizer.batches(folder)
    found: dict[str, list[Hypothesis]] = {}
    with runs_after(getattr(recognizer.model, "encoder", None), watch):
        for batch in batches:
            heads = recognizer.encode(batch)
            watch.start()
            found |= zip(batch.ids, recognizer.search(heads))
            watch.stop()
    if len(found) != len(manifest):
        raise InputError(f"{folder}: {len(manifest)} utterances, but {len(found)} were decoded")
    wall = time.monotonic() - begin
    account = {"seconds_audio": round(float(manifest.seconds.sum()), 3), "seconds_wall": round(wall, 3)}
    account["seconds_after_encoder"] = round(watch.seconds, 3)
    account["unfinished"] = sum(bool(nbest) and not nbest[0].complete for nbest in found.values())
    account["nothing_found"] = sum(not nbest for nbest in found.values())
    return found, {**account, "data_hash": manifest.hash}


def write_decode(recognizer: Recognizer, found: dict[str, list[Hypothesis]], out: Path, record: dict) -> None:
    """Writes `text`, `nbest.jsonl` and `decode.json` into a new folder, all or nothing.

    `ctm` too, where the search says when each token came; see `speechkit.decoding.word_times`.
    """
    text = recognizer.searcher.text
    ids = sorted(found)
    with atomic_folder(out) as folder:
        lines = (f"{u} {text(found[u][0]) if found[u] else ''}".rstrip() for u in ids)
        write_text(folder / "text", "".join(f"{line}\n" for line in lines))
        lists = ((u, [{"text": text(each), **asdict(each)} for each in found[u]]) for u in ids)
        write_nbest(folder / "nbest.jsonl", lists)
        write_json(folder / "decode.json", record)
        write_ctm(folder / "ctm", found, recognizer)


def describe(recognizer: Recognizer, exp: Path, how: str, set_name: str, tuned: dict | None) -> dict:
    """What decode.json says beside the account of time: everything that a result must be traced to."""
    parameters = sum(p.numel() for p in recognizer.model.parameters())
    trained = sum(p.numel() for p in recognizer.model.parameters() if p.requires_grad)
    return {
        "system": exp.parent.name,
        "seed": recognizer.run.seed,
        "set": set_name,
        "how": how,
        "tuned_on": tuned,
        "checkpoint": str(recognizer.checkpoint),
        "config_hash": hash_json(to_dict(recognizer.run)),
        "decode_config": to_dict(recognizer.config),
        "normaliser": to_dict(recognizer.resources.assets.tokenizer.normaliser.config),
        "units": UNITS[recognizer.resources.assets.tokenizer.kind],
        **{
            name: str(path) if (path := getattr(recognizer.resources, f"{name}_path")) else None
            for name in ("lexicon", "lm", "bert")
        },
        "commands": {
            "train": _train_command(recognizer.checkpoint),
            "decode": shlex.join(["speechkit", *sys.argv[1:]]),
        },
        "hardware": hardware(recognizer),
        "versions": environment(),
        "parameters": parameters,
        "parameters_trained": trained,
        "updates": _updates(recognizer.checkpoint),
    }


def hardware(recognizer: Recognizer) -> str:
    """The device's name and, for a CPU, its threads."""
    import torch

    if recognizer.device.type == "cuda":
        return torch.cuda.get_device_name(recognizer.device)
    return f"{environment()['cpu']}, {torch.get_num_threads()} threads"


def _train_command(checkpoint: Path) -> str | None:
    """The command that trained a checkpoint; None when it does not say."""
    facts = checkpoint / "run.json"
    if not facts.exists():
        return None
    return json.loads(facts.read_text(encoding="utf-8")).get("command") or None


def _updates(checkpoint: Path) -> int | None:
    """Updates of training, from the run's metrics."""
    metrics = checkpoint.parent / "metrics.jsonl"
    if not metrics.exists():
        return None
    rows = (json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines())
    return max((row.get("update", 0) for row in rows), default=None)
