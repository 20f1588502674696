"""`speechkit split data/train 4`: writes data/train/split4/1..4 for parallel jobs."""

from __future__ import annotations

import argparse
import sys

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("data", help="a data directory")
    parser.add_argument("parts", type=int, help="how many")
    parser.add_argument(
        "--per-utt", type=true_or_false, default=False, help="ignore the speakers; writes split<n>utt"
    )
    parser.add_argument("--force", type=true_or_false, default=False, help="also when nothing changed")


def run(args: argparse.Namespace) -> None:
    """Splits; skips itself when nothing changed."""
    from speechkit.data.kaldi_dir import read_data_dir, table_files
    from speechkit.data.split import split_folder, write_split
    from speechkit.errors import UsageError
    from speechkit.stamp import Stamp

    if args.parts < 1:
        raise UsageError(f"parts must be at least 1, not {args.parts}")
    folder = split_folder(args.data, args.parts, args.per_utt)
    stamp = Stamp(folder, "split", {}, table_files(args.data), args.force)
    if stamp.fresh():
        return
    write_split(read_data_dir(args.data), args.parts, args.per_utt)
    stamp.write()
    print(f"speechkit split: {folder}/1 to {args.parts}", file=sys.stderr)
