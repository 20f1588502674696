"""`speechkit compare`: the paired test between two systems, each with one decode a training seed."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import InputError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add(
        "first", type=Path, nargs="+", metavar="A_DIR", help="scored decode folders of one system, one a seed"
    )
    add(
        "--with",
        dest="second",
        type=Path,
        nargs="+",
        required=True,
        metavar="B_DIR",
        help="those of the other",
    )
    add("--class", dest="word_class", help="compare the words of one class only (see word_tags), such as far")
    add("--characters", type=true_or_false, default=False, help="compare characters (CER), not words")
    add("--resamples", type=int, default=10_000, help="bootstrap draws (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the draws (default: %(default)s)")


def run(args: argparse.Namespace) -> int | None:
    """Prints one line: rates, difference with its 95 % interval, p, verdict."""
    from speechkit.metrics.result import read_utterances
    from speechkit.metrics.significance import paired_test

    if args.resamples < 100:
        raise InputError(f"--resamples {args.resamples}: at least 100 are needed for a 95 % interval")
    if args.characters and args.word_class:
        raise UsageError("--class is of words: leave it out with --characters")
    first, second = (
        [read_utterances(folder, args.word_class, args.characters) for folder in side]
        for side in (args.first, args.second)
    )
    found = paired_test(first, second, args.resamples, args.seed)
    unit = "characters" if args.characters else "words"
    print(f"{args.word_class or f'all {unit}'}: {found.line(unit)}")
    return None
