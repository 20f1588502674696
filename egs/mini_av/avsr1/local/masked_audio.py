#!/usr/bin/env python3
"""Stage 7: how many masked audio tokens of held-out clips are told right, with their video and without.

    local/masked_audio.py exp dump/clips_test

Every clip is masked in the same way for all models, by its number. Writes exp/masked_audio.json, a row for
each model and seed, and exp/masked_audio_tests.json: paired tests over clips, means over seeds, of the share
that is told wrong.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from speechkit.data.batch import Batch
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.decoding.one_utterance import one_by_one
from speechkit.errors import InputError
from speechkit.files import write_json
from speechkit.metrics.set_section import verdict
from speechkit.metrics.significance import Utterances, paired_test
from speechkit.train.checkpoint import load_model

# Line of the tables -> the model, and whether it sees the clips.
LINES = {
    "sound and pictures": ("pre_av", True),
    "sound and pictures, blindfolded": ("pre_av", False),
    "sound alone": ("pre_a", False),
    "sound and pictures, masked without a guard": ("pre_av_literal", True),
}
COVERAGE = 0.8
"""Largest share that is hidden here, also from the model that learnt without a guard."""
TESTS = (  # what is expected to be told wrong less often, and more often
    ("sound and pictures", "sound and pictures, blindfolded"),
    ("sound and pictures", "sound alone"),
    ("sound and pictures", "sound and pictures, masked without a guard"),
)


def without_video(batch: Batch) -> Batch:
    """The same clips, unseen."""
    heard = {name: values for name, values in batch.fields.items() if name in ("features", "kmeans_audio")}
    return replace(batch, fields=heard)


def tell(model_folder: Path, data: Path, seen: bool) -> tuple[Utterances, float]:
    """Masked audio tokens of every clip (`words`), those told wrong (`errors`); the mean loss in nats."""
    model, run, _ = load_model(model_folder)
    model.config.mask = replace(model.config.mask, max_coverage=COVERAGE)
    names, read = read_data_dir(data, need_audio=False).utterances, one_by_one(model, run, data)
    tokens, wrong, loss = [], [], 0.0
    for number, name in enumerate(names):
        batch = read(name, number)
        with torch.no_grad():
            terms = model.loss(batch if seen else without_video(batch), 0)
        right, count = terms["accuracy_audio"]
        tokens.append(count)
        wrong.append(count - int(right))
        loss += float(terms["audio"][0])
    clips = Utterances(tuple(names), tuple(names), np.array(tokens), np.array(wrong))
    return clips, loss / sum(tokens)


def measure(exp: Path, data: Path) -> tuple[dict[str, dict], dict[str, list[Utterances]]]:
    """The table, and the results of each line by seed; models that are not there are left out."""
    table, found = {}, {}
    for line, (system, seen) in LINES.items():
        for folder in sorted(exp.glob(f"{system}/seed*")):
            if not (folder / "final").is_dir():
                continue
            clips, loss = tell(folder, data, seen)
            found.setdefault(line, []).append(clips)
            total = int(clips.words.sum())
            told = round(100 * (1 - clips.errors.sum() / total), 2)
            row = {"told right %": told, "loss, nats": round(loss, 3), "masked tokens": total}
            table[f"{line}, {folder.name}"] = row
    return table, found


def compare(found: dict[str, list[Utterances]]) -> dict[str, dict]:
    """A row for each test whose models are there."""
    rows = {}
    for first, second in TESTS:
        if first in found and second in found:
            tested = paired_test(found[first], found[second])
            rates = {"first, wrong %": round(tested.rate_a, 2), "second, wrong %": round(tested.rate_b, 2)}
            rows[f"{first} < {second}"] = {**rates, "difference": verdict(tested)}
    return rows


def main() -> None:
    """Writes both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("exp", type=Path)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    table, found = measure(args.exp, args.data)
    if not table:
        raise InputError(f"{args.exp}: no pre-trained model below it; run stage 4 first")
    write_json(args.exp / "masked_audio.json", table)
    write_json(args.exp / "masked_audio_tests.json", compare(found))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/masked_audio.py: error: {error}")
