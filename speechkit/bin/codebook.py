"""`speechkit codebook`: which phones the codewords of a pre-trained model stand for, how many are in use."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add = parser.add_argument
    add("--exp", type=Path, required=True, help="experiment or checkpoint of a model with a quantizer")
    add("--data", type=Path, required=True, help="data directory made by speechkit format")
    add(
        "--phones",
        type=Path,
        required=True,
        help="folder of .phn or TextGrid files, CTM, or table: utterance phone phone ...",
    )
    add("--out", type=Path, required=True, help="folder for codebook.json and codebook.png")
    add(
        "--form",
        choices=("phn", "ctm", "textgrid", "table"),
        help="of --phones (what the names of its files say)",
    )
    add("--phone-rate", type=float, default=100.0, help="phones a second of a table (%(default)s)")
    add("--sample-rate", type=float, default=16000.0, help="samples a second in .phn files (%(default)s)")
    add("--tier", help="of TextGrids (the one called phones, or the only one)")
    add("--device", default="cpu", help="such as cuda (%(default)s)")
    add("--force", type=true_or_false, default=False, help="do it although nothing changed")


def run(args: argparse.Namespace) -> int:
    """Counts, measures, draws and writes; skips itself when nothing changed."""
    from speechkit.data.segmentations import open_segmentation
    from speechkit.decoding.codebook import Coder, count_phones, open_data
    from speechkit.errors import UsageError
    from speechkit.files import write_json
    from speechkit.metrics.phone_codes import draw_phone_codes, measure
    from speechkit.stamp import Stamp

    for name in ("phone_rate", "sample_rate"):
        if not 0 < getattr(args, name) < float("inf"):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} {getattr(args, name)}: must be more than 0")
    final = args.exp / "final"  # of an experiment, whose logs may grow
    tables = [args.data / name for name in ("wav.scp", "utt2num_samples")]
    options = [str(args.exp), args.form, args.phone_rate, args.sample_rate, args.tier]
    inputs = [final if final.is_dir() else args.exp, *tables, args.phones]
    stamp = Stamp(args.out / "codebook.json", "codebook", options, inputs, args.force)
    if stamp.fresh():
        return 0
    data = open_data(args.data)
    rates = {"rate": args.phone_rate, "samples": args.sample_rate}
    segmentation = open_segmentation(args.phones, data.utterances, args.form, **rates, tier=args.tier)
    coder = Coder(args.exp, args.device)
    counts = count_phones(coder, data, segmentation)
    table = counts.table(segmentation.names)
    numbers = measure(table, coder.entries**coder.groups)
    sizes = f"{numbers['active']} codewords of {args.exp}, entropy {numbers['entropy']:.2f} nats"
    drawn = draw_phone_codes(table, sizes, args.out / "codebook.png")
    facts = {
        "command": shlex.join(["speechkit", "codebook", *_words(args)]),
        "model": str(args.exp),
        "kind": coder.encoder.run.model.name,
        "data": str(args.data),
        "phones_from": str(args.phones),
        "utterances": len(data.utterances),
        "frames": counts.frames,
        "frames_without_phone": counts.without,
        "groups": coder.groups,
        "entries": coder.entries,
        "drawn": drawn,
    }
    write_json(args.out / "codebook.json", {**facts, **numbers})
    stamp.write()
    print(f"speechkit codebook: {args.out / 'codebook.json'}: {_line(facts, numbers)}", file=sys.stderr)
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    """The options that were given, without their defaults."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = {name: value for name, value in vars(args).items() if name not in ("force", "verb")}
    chosen = {name: value for name, value in given.items() if value != parser.get_default(name)}
    return [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _line(facts: dict, numbers: dict) -> str:
    """The numbers in one line."""
    often = f"{numbers['entropy_often']:.3f}" if numbers["entropy_often"] is not None else "none"
    without = f", {facts['frames_without_phone']} without a phone left out"
    return (
        f"{numbers['active']} of {numbers['codewords']} codewords in use; entropy of phones in nats (bits): "
        f"{numbers['entropy']:.3f} ({numbers['entropy_bits']:.3f}), weighted by frequency "
        f"{numbers['entropy_weighted']:.3f}, of {numbers['active_often']} codewords seen {numbers['often']} "
        f"times or more {often}; {facts['frames']} frames, {len(numbers['phones'])} phones"
        + (without if facts["frames_without_phone"] else "")
    )
