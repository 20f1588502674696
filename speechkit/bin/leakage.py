"""`speechkit leakage --train dump/train --test dump/test`: exit 1 when the sets share anything."""

from __future__ import annotations

import argparse
import sys

from speechkit.bin.__main__ import true_or_false

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--test", nargs="+", required=True, help="data directories that must be unseen")
    parser.add_argument("--train", nargs="+", default=[], help="data directories trained on")
    parser.add_argument("--pretrain", nargs="+", default=[], help="data directories pre-trained on")
    parser.add_argument(
        "--text", nargs="+", default=[], help="texts of the language model, a sentence a line"
    )
    parser.add_argument("--audio", type=true_or_false, default=True, help="decode and compare recordings")
    parser.add_argument(
        "--similar", type=true_or_false, default=True, help="also look for near-duplicate audio"
    )
    parser.add_argument("--min-words", type=int, default=3, help="shorter sentences do not count")
    parser.add_argument("--allow-pipes", type=true_or_false, default=False, help="run pipes in wav.scp")
    parser.add_argument("--jobs", type=int, help="processes (all cores)")
    parser.add_argument("--report", help="write all findings here as JSON")
    parser.add_argument("--waive", help="why the findings are accepted: recorded in --report, exit status 0")


def run(args: argparse.Namespace) -> int:
    """Compares, prints the findings by kind, and writes the report."""
    from speechkit.data.kaldi_dir import read_data_dir
    from speechkit.data.leakage import KINDS, find_leaks, report
    from speechkit.data.parallel import cores
    from speechkit.errors import UsageError
    from speechkit.files import write_json

    if args.waive is not None and not (args.waive.strip() and args.report):
        raise UsageError("--waive needs a reason, and --report FILE to record it in")
    if not (args.train or args.pretrain or args.text):
        raise UsageError("nothing to compare with: give --train, --pretrain or --text")
    tests = [read_data_dir(path) for path in args.test]
    others = [read_data_dir(path) for path in [*args.train, *args.pretrain]]
    leaks = find_leaks(
        tests,
        others,
        args.text,
        audio=args.audio,
        similar=args.similar,
        min_words=args.min_words,
        allow_pipes=args.allow_pipes,
        jobs=args.jobs or cores(),
    )
    account = report(leaks, tests, args.waive)
    for kind, about in KINDS.items():
        found = [leak for leak in leaks if leak.kind == kind]
        for leak in found[:_SHOWN]:
            detail = f" ({leak.detail})" if leak.detail else ""
            print(f"{kind}: {leak.test} is in {leak.where} as {leak.other}{detail}", file=sys.stderr)
        if len(found) > _SHOWN:
            print(f"{kind}: and {len(found) - _SHOWN} more", file=sys.stderr)
        if found:
            print(f"{account['counts'][kind]} {about}", file=sys.stderr)
    if args.report:
        write_json(args.report, account)
    verdict = "nothing shared" if not leaks else f"{len(leaks)} finding(s)"
    if leaks and args.waive:
        verdict += f", waived: {args.waive}"
    print(f"speechkit leakage: {', '.join(args.test)}: {verdict}", file=sys.stderr)
    return 1 if leaks and not args.waive else 0
