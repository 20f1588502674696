"""`speechkit train`: one process, or many under torchrun; the same command again resumes."""

from __future__ import annotations

import argparse

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--config", help="YAML of differences from the defaults")
    parser.add_argument("--train", nargs="+", default=[], help="training directories, one source each")
    parser.add_argument("--dev", nargs="+", default=[], help="dev directories")
    parser.add_argument("--tokenizer", help="tokenizer folder")
    parser.add_argument("--cmvn", help="CMVN statistics, cmvn.json")
    parser.add_argument("--exp", help="experiment folder")
    parser.add_argument(
        "--init-encoder",
        help="checkpoint or experiment whose encoder is the start: weights, and defaults of model.encoder",
    )
    parser.add_argument("--print-config", type=true_or_false, default=False, help="print it and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that win over the file's")


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0, or 75 when a signal stopped it with everything saved."""
    from speechkit.config import dump
    from speechkit.errors import UsageError
    from speechkit.train.pretrained import run_config

    config = run_config(args.config, args.overrides, args.init_encoder, args.exp)
    if args.print_config:
        print(dump(config), end="")
        return 0
    for option in ("train", "dev", "exp"):
        if not getattr(args, option):
            raise UsageError(f"--{option} is required")

    import shlex
    import sys

    for folder in set(args.train) & set(args.dev):
        print(
            f"speechkit train: {folder} is trained on and validated on: its dev values mean little",
            file=sys.stderr,
        )

    from speechkit.train.start import train

    command = shlex.join(["speechkit", *sys.argv[1:]]) if sys.argv[1:2] == ["train"] else "speechkit train"
    return train(config, args.train, args.dev, args.exp, args.tokenizer, args.cmvn, command)
