"""`speechkit combine data/all data/a data/b`: joins data directories; one source alone is copied."""

from __future__ import annotations

import argparse
import sys

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("output", help="where the joint directory goes")
    parser.add_argument("sources", nargs="+", help="data directories")
    parser.add_argument(
        "--drop-partial", type=true_or_false, default=False, help="leave out tables that not all sources have"
    )
    for what in ("utt", "spk"):
        for side in ("prefix", "suffix"):
            parser.add_argument(f"--{what}-{side}", default="", help=f"{side} for the new {what} ids")
    parser.add_argument("--force", type=true_or_false, default=False, help="also when nothing changed")


def run(args: argparse.Namespace) -> None:
    """Joins and writes; skips itself when nothing changed."""
    from speechkit.data.combine import combine, rename
    from speechkit.data.kaldi_dir import check_output, read_data_dir, table_files, write_data_dir
    from speechkit.data.records import clear_records, joint_records, record_files, write_records
    from speechkit.stamp import Stamp

    check_output(args.output, args.sources)
    inputs = [file for source in args.sources for file in (*table_files(source), *record_files(source))]
    options = {key: value for key, value in vars(args).items() if key not in ("force", "output")}
    stamp = Stamp(args.output, "combine", options, inputs, args.force)
    if stamp.fresh():
        return
    joint, messages = combine([read_data_dir(source) for source in args.sources], args.drop_partial)
    records, more = joint_records(args.sources, joint.rows())
    for message in [*messages, *more]:
        print(f"speechkit combine: {message}", file=sys.stderr)
    joint = rename(
        joint,
        lambda utterance: args.utt_prefix + utterance + args.utt_suffix,
        lambda speaker: args.spk_prefix + speaker + args.spk_suffix,
    )
    clear_records(args.output)
    write_data_dir(joint, args.output)
    write_records(records, args.output)
    stamp.write()
    print(
        f"speechkit combine: {args.output}: {len(joint.utt2spk)} utterances, {len(joint.speakers)} speakers "
        f"from {len(args.sources)} director{'y' if len(args.sources) == 1 else 'ies'}",
        file=sys.stderr,
    )
