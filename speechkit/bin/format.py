"""`speechkit format`: decode, check and resample audio once."""

from __future__ import annotations

import argparse

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--data", required=True, help="Kaldi data directory")
    parser.add_argument("--out", required=True, help="directory to make, such as dump/train")
    parser.add_argument("--rate", type=int, default=16000, help="Hz (16000)")
    parser.add_argument(
        "--kind", choices=("train", "evaluation"), default="train", help="evaluation sets lose nothing"
    )
    parser.add_argument(
        "--min-seconds", type=float, default=0.1, help="shorter training utterances are dropped (0.1)"
    )
    parser.add_argument("--max-seconds", type=float, default=30.0, help="longer ones are dropped (30)")
    parser.add_argument(
        "--max-drop", type=float, default=0.005, help="largest share that may be dropped (0.005)"
    )
    parser.add_argument(
        "--format", choices=("flac", "ark"), default="flac", help="a file an utterance, or archives"
    )
    parser.add_argument(
        "--channel", type=int, help="which of several channels, from 0; without it audio must be mono"
    )
    parser.add_argument(
        "--raw-format", help="of *.raw and *.pcm files: encoding,rate,channels, such as s16le,16000,1"
    )
    parser.add_argument(
        "--allow-pipes", type=true_or_false, default=False, help="run `sox ... |` entries of wav.scp"
    )
    parser.add_argument(
        "--resample", type=true_or_false, default=True, help="false refuses audio of another rate"
    )
    parser.add_argument(
        "--link", type=true_or_false, default=False, help="hard-link files that are already as wanted"
    )
    parser.add_argument("--jobs", type=int, help="processes (all cores)")
    parser.add_argument("--force", type=true_or_false, default=False, help="work even when nothing changed")


def run(args: argparse.Namespace) -> int:
    """Formats one data directory."""
    from speechkit.data.formatting import Options, format_data_dir
    from speechkit.data.parallel import cores

    names = ("rate", "kind", "min_seconds", "max_seconds", "max_drop", "channel", "raw_format", "allow_pipes")
    try:
        options = Options(
            form=args.format, resample=args.resample, link=args.link, **{n: getattr(args, n) for n in names}
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    format_data_dir(args.data, args.out, options, jobs=args.jobs or cores(), force=args.force)
    return 0
