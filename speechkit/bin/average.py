"""`speechkit average`: the mean of checkpoints' weights, as a folder to decode with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--checkpoints", nargs="+", default=[], help="step_N folders")
    parser.add_argument("--exp", help="experiment folder to choose them from")
    parser.add_argument("--best", type=int, help="the n best validated ones of --exp")
    parser.add_argument("--last", type=int, help="the n newest ones of --exp")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--force", type=true_or_false, default=False, help="do it although nothing changed")


def _choose(args: argparse.Namespace) -> list[Path]:
    from speechkit.errors import InputError, UsageError
    from speechkit.train.checkpoint import checkpoints, load_state

    ways = [bool(args.checkpoints), args.best is not None, args.last is not None]
    if sum(ways) != 1 or (args.exp is None) != bool(args.checkpoints):
        raise UsageError("give either --checkpoints, or --exp with one of --best and --last")
    if args.checkpoints:
        return [Path(folder) for folder in args.checkpoints]
    count = args.best if args.last is None else args.last
    if count < 1:
        raise UsageError(f"{count} checkpoints cannot be averaged")
    found = checkpoints(Path(args.exp))
    if not found:
        raise InputError(f"{args.exp}: no step_N checkpoint")
    if args.last is not None:
        return [folder for _, folder in found[-count:]]
    best = [int(entry[-1]) for entry in load_state(found[-1][1])["progress"]["best"][:count]]
    return [folder for update, folder in found if update in best]


def run(args: argparse.Namespace) -> int:
    """Averages; the folder appears complete or not at all."""
    from speechkit.stamp import Stamp

    folders = _choose(args)
    stamp = Stamp(args.output, "average", [str(f) for f in folders], folders, args.force)
    if stamp.fresh():
        return 0
    from speechkit.train.checkpoint import average, load_model, save_checkpoint

    model, config, assets = load_model(folders[-1])
    model.load_state_dict(average(folders))
    facts = {"average": {"how": "average", "checkpoints": [str(folder) for folder in folders]}}
    save_checkpoint(Path(args.output), model.state_dict(), config, assets, run=facts)
    stamp.write()
    print(f"speechkit average: {args.output}: mean of {len(folders)} checkpoints", file=sys.stderr)
    return 0
