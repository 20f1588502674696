"""`speechkit fix data/train`: repairs the form of a data directory and rejects utterances by name."""

from __future__ import annotations

import argparse
import sys

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = (
        "From an evaluation set nothing is rejected: the command fails, and changes nothing. A set counts "
        "as one when its name begins with dev, test, eval or valid; --evaluation says it explicitly."
    )
    parser.add_argument("data", help="a data directory, fixed in place unless --output is given")
    parser.add_argument("--output", help="write the fixed directory here instead")
    parser.add_argument(
        "--max-reject", type=float, default=0.01, help="largest share of a training set to reject"
    )
    parser.add_argument(
        "--evaluation", type=true_or_false, help="nothing may be rejected (default: by the name)"
    )
    parser.add_argument(
        "--read-audio", type=true_or_false, default=False, help="decode and check every recording"
    )
    parser.add_argument("--allow-pipes", type=true_or_false, default=False, help="accept pipes in wav.scp")
    parser.add_argument("--no-text", type=true_or_false, default=False, help="keep empty transcripts")
    parser.add_argument("--no-audio", type=true_or_false, default=False, help="do not look for audio files")
    parser.add_argument("--rate", type=int, help="sample rate every recording must have (with --read-audio)")


def run(args: argparse.Namespace) -> None:
    """Fixes, and prints what was repaired and the account of the utterances."""
    from speechkit.data.fix import fix_data_dir
    from speechkit.data.validate import Checks
    from speechkit.errors import UsageError

    if not 0 <= args.max_reject <= 1:
        raise UsageError(f"--max-reject {args.max_reject}: a share lies between 0 and 1")
    checks = Checks(args.read_audio, args.allow_pipes, not args.no_text, not args.no_audio, args.rate)
    kind = None if args.evaluation is None else "evaluation" if args.evaluation else "train"
    fixed = fix_data_dir(args.data, args.output, kind=kind, max_reject=args.max_reject, checks=checks)
    for repair, count in sorted(fixed.repairs.items()):
        print(f"{repair}: {count}", file=sys.stderr)
    if fixed.ledger.dropped:
        print(fixed.ledger.summary(), file=sys.stderr)
    output, rejected = args.output or args.data, len(fixed.ledger.dropped)
    print(
        f"speechkit fix: {output}: {len(fixed.ledger.kept)} utterances kept, {rejected} rejected"
        + (f" (see {output}/rejected.jsonl)" if rejected else ""),
        file=sys.stderr,
    )
