"""`speechkit validate data/train`: exit 1 when there is any problem, and print them all."""

from __future__ import annotations

import argparse
import sys

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("data", help="a data directory")
    parser.add_argument(
        "--read-audio", type=true_or_false, default=False, help="decode and check every recording"
    )
    parser.add_argument("--allow-pipes", type=true_or_false, default=False, help="accept pipes in wav.scp")
    parser.add_argument("--no-text", type=true_or_false, default=False, help="transcripts may be missing")
    parser.add_argument("--no-audio", type=true_or_false, default=False, help="do not look for audio files")
    parser.add_argument(
        "--printable", type=true_or_false, default=False, help="refuse unprintable characters"
    )
    parser.add_argument("--rate", type=int, help="sample rate every recording must have (with --read-audio)")


def run(args: argparse.Namespace) -> int:
    """Prints problems and warnings as `file:line: message (value)`, then the summary."""
    from speechkit.data.validate import Checks, check_data_dir

    checks = Checks(
        args.read_audio, args.allow_pipes, not args.no_text, not args.no_audio, args.rate, args.printable
    )
    report = check_data_dir(args.data, checks)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"speechkit validate: {report.summary()}", file=sys.stderr)
    return 1 if report.problems else 0
