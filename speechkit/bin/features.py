"""`speechkit features`: log-mel or MFCC features to ark/scp, and CMVN statistics."""

from __future__ import annotations

import argparse

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        help="directory made by speechkit format; given again for each one more",
    )
    parser.add_argument("--config", help="YAML of differences from the frontend's defaults")
    parser.add_argument(
        "--cmvn", type=true_or_false, default=False, help="write cmvn.json: mean and deviation of all frames"
    )
    parser.add_argument("--dump", type=true_or_false, default=True, help="false computes cmvn.json only")
    parser.add_argument(
        "--speaker-cmvn", type=true_or_false, default=False, help="normalise by speaker before dumping"
    )
    parser.add_argument(
        "--compress", type=true_or_false, default=False, help="Kaldi's compression, a byte a value"
    )
    parser.add_argument(
        "--speeds",
        type=float,
        nargs="+",
        default=[],
        metavar="S",
        help="dump at these speeds too (0.9 1.1), for augment.speeds",
    )
    parser.add_argument("--jobs", type=int, help="processes (all cores)")
    parser.add_argument("--force", type=true_or_false, default=False, help="work even when nothing changed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as name=mfcc bins=40")


def run(args: argparse.Namespace) -> int:
    """Makes the features of the data directories, one after the other."""
    from speechkit.data.feature_dump import Options, dump_features, load_feature_config
    from speechkit.data.parallel import cores

    config = load_feature_config(args.config, args.overrides)
    try:
        options = Options(args.dump, args.cmvn, args.speaker_cmvn, args.compress, tuple(args.speeds))
    except ValueError as error:
        raise UsageError(str(error)) from None
    for path in args.data:
        dump_features(path, config, options, jobs=args.jobs or cores(), force=args.force)
    return 0
