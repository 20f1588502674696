"""`speechkit probe`: a linear classifier on every block of an encoder, and how often it is right."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add = parser.add_argument
    add("--model", type=Path, required=True, help="checkpoint or experiment folder")
    add("--train", type=Path, required=True, help="data directory to train the classifiers on")
    add("--test", type=Path, required=True, help="data directory of other speakers to test them on")
    add("--labels", default="phones.txt", help="file of frame labels in both directories (%(default)s)")
    add(
        "--label-rate",
        type=float,
        help="labels a second (phones: 100; else what is recorded beside the file)",
    )
    add("--layers", default="all", help="such as 0,6,12; 0 is the first block's input (%(default)s)")
    add("--max-hours", type=float, default=1.0, help="audio to train on, evenly spread (%(default)s)")
    add("--out", type=Path, help="folder for probe_<labels>.json and .png (the model's)")
    add("--device", help="such as cuda (cpu)")


def run(args: argparse.Namespace) -> None:
    """Trains, tests, prints the table and writes it with its picture."""
    from speechkit.decoding.encoder_features import FrozenEncoder
    from speechkit.decoding.probe import Labelled, probe
    from speechkit.errors import UsageError
    from speechkit.files import write_json
    from speechkit.metrics.plots_pretraining import draw_probe

    if not args.max_hours > 0:
        raise UsageError(f"--max-hours {args.max_hours}: must be more than 0")
    encoder = FrozenEncoder(args.model, args.device or "cpu")
    layers = _layers(args.layers, encoder.blocks)
    rate = args.label_rate or (100.0 if args.labels.startswith("phones") else None)
    train = Labelled(encoder, args.train, args.labels, rate, args.max_hours * 3600)
    test = Labelled(encoder, args.test, args.labels, rate)
    report = probe(train, test, layers)
    name = f"probe_{Path(args.labels).stem}"
    folder = args.out or args.model
    values = {**vars(report), "layers": [vars(found) for found in report.layers]}
    facts = {
        "model": str(args.model),
        "train": str(args.train),
        "test": str(args.test),
        "labels": args.labels,
    }
    write_json(folder / f"{name}.json", {**facts, **values})
    curve = {found.layer: found.accuracy for found in report.layers}
    draw_probe(curve, report.chance, f"{args.labels} of {args.test}", folder / f"{name}.png")
    print("| layer | accuracy |\n|---|---|")
    for found in report.layers:
        print(f"| {found.layer} | {100 * found.accuracy:.2f} |")
    best = max(report.layers, key=lambda found: found.accuracy)
    print(
        f"speechkit probe: {folder / name}.json: best layer {best.layer}, {100 * best.accuracy:.2f} % of "
        f"{report.test_frames} frames, {report.classes} classes; always the most frequent one: "
        f"{100 * report.chance:.2f} %"
        + (f"; {report.unknown} frames have labels that training never saw" if report.unknown else ""),
        file=sys.stderr,
    )


def _layers(text: str, blocks: int) -> list[int]:
    from speechkit.errors import UsageError

    if text == "all":
        return list(range(blocks + 1))
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) <= blocks for part in parts):
        raise UsageError(f"--layers {text}: expected all, or numbers from 0 to {blocks} with commas")
    return sorted({int(part) for part in parts})
