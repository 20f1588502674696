"""`speechkit train`: one process, or many under torchrun; the same command again resumes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechkit.bin.__main__ import true_or_false

if TYPE_CHECKING:
    from speechkit.stamp import Stamp
    from speechkit.train.run import RunConfig


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
    from speechkit.errors import UsageError

    if args.print_config:
        from speechkit.config import dump

        print(dump(_config(args)), end="")
        return 0
    for option in ("train", "dev", "exp"):
        if not getattr(args, option):
            raise UsageError(f"--{option} is required")
    stamp, first = _stamp(args), os.environ.get("RANK", "0") == "0"
    if stamp.fresh(tell=first):
        return 0
    status = _train(args)
    if status == 0 and first:
        stamp.write()
    return status


def _stamp(args: argparse.Namespace) -> Stamp:
    """What a finished run depends on: to look at that takes seconds less than to load it all again."""
    from speechkit.config import read_values
    from speechkit.data.kaldi_dir import table_files
    from speechkit.stamp import Stamp

    values, _ = read_values(args.config, args.overrides)
    options = [values, args.train, args.dev, args.tokenizer, args.cmvn, args.init_encoder]
    tables = [file for folder in (*args.train, *args.dev) for file in table_files(folder)]
    inputs = [*tables, *(path for path in (args.tokenizer, args.cmvn) if path)]
    return Stamp(Path(args.exp) / "final", "train", options, inputs, again="(another --exp trains anew)")


def _config(args: argparse.Namespace) -> RunConfig:
    from speechkit.train.pretrained import run_config

    return run_config(args.config, args.overrides, args.init_encoder, args.exp)


def _train(args: argparse.Namespace) -> int:
    import shlex
    import sys

    config = _config(args)
    for folder in set(args.train) & set(args.dev):
        print(
            f"speechkit train: {folder} is trained on and validated on: its dev values mean little",
            file=sys.stderr,
        )

    from speechkit.train.start import train

    command = shlex.join(["speechkit", *sys.argv[1:]]) if sys.argv[1:2] == ["train"] else "speechkit train"
    return train(config, args.train, args.dev, args.exp, args.tokenizer, args.cmvn, command)
