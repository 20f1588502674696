"""`speechkit decode`: recognises data directories with a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import InputError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument(
        "--model", required=True, help="experiment folder, such as exp/ctc/seed1, or a checkpoint"
    )
    parser.add_argument("--data", required=True, nargs="+", help="data directories, such as dump/test")
    parser.add_argument("--config", help="YAML of the search; greedy when not given")
    parser.add_argument("--how", help="name of this way of decoding; from the config's name when not given")
    parser.add_argument(
        "--out", help="output folder (one data directory only); MODEL/decode_<set>_<how> otherwise"
    )
    parser.add_argument(
        "--lexicon", help="words, or words and their spellings, that the search is confined to"
    )
    parser.add_argument("--lm", help="language model: an ARPA file, or the folder of a causal_lm")
    parser.add_argument("--bert", help="folder or hub name of the BERT that rescores (search.name=rescore)")
    parser.add_argument(
        "--tune-on", help="data directory on which the config's grid is searched, never a test set"
    )
    parser.add_argument("--device", help="such as cuda; a GPU is taken when there is one")
    parser.add_argument("--force", type=true_or_false, default=False, help="decode again what is up to date")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the config")


def run(args: argparse.Namespace) -> None:
    """Tunes when a grid is given, then decodes every data directory whose decode is not up to date."""
    if args.out and len(args.data) > 1:
        raise UsageError("--out takes one --data; leave it out to decode several sets")
    from speechkit.config import load_config, to_dict
    from speechkit.decoding import DecodeConfig
    from speechkit.decoding.recognizer import find_checkpoint
    from speechkit.stamp import Stamp

    exp = Path(args.model)
    config = load_config(DecodeConfig, args.config, args.overrides)
    if bool(config.grid) != bool(args.tune_on):
        raise UsageError("--tune-on needs a grid in the config, and a grid needs --tune-on")
    if args.tune_on in args.data:
        print(
            f"speechkit decode: {args.tune_on} is both tuned on and decoded: no test result", file=sys.stderr
        )
    how = args.how or (Path(args.config).stem.removeprefix("decode_") if args.config else "greedy")
    extra = [path for path in (args.lexicon, args.lm, args.bert, args.tune_on) if path]
    if how != Path(how).name:
        raise UsageError(f"--how '{how}' becomes part of a folder's name: no slash, please")
    for path in [*extra, *args.data]:
        if path != args.bert and not Path(path).exists():
            raise InputError(f"{path}: no such file or folder")
    read = list(extra)
    if args.lm and Path(args.lm).is_dir():
        read[read.index(args.lm)] = find_checkpoint(Path(args.lm)) / "model.safetensors"
    jobs = {}
    for data in args.data:
        name = Path(data).name
        out = Path(args.out) if args.out else exp / f"decode_{name}_{how}"
        inputs = [find_checkpoint(exp) / "model.safetensors", data, *read]
        # Not the folder: scoring adds files to it.
        stamp = Stamp(out / "text", "decode", [to_dict(config), how], inputs, args.force)
        complete = all((out / file).is_file() for file in ("text", "nbest.jsonl", "decode.json"))
        if not (complete and stamp.fresh()):
            jobs[data] = (out, stamp)
    if jobs:
        _decode(args, exp, config, how, jobs)


def _decode(args: argparse.Namespace, exp: Path, config: object, how: str, jobs: dict) -> None:
    from speechkit.decoding.recognizer import Recognizer
    from speechkit.decoding.tune import tune
    from speechkit.decoding.write import decode_set, describe, write_decode
    from speechkit.files import write_json

    given = {"lexicon": args.lexicon, "lm": args.lm, "bert": args.bert, "device": args.device}
    recognizer = Recognizer.load(exp, config, **given)
    tuned = None
    if config.grid:
        tuned = tune(recognizer, Path(args.tune_on))
        write_json(recognizer.checkpoint.parent / f"tune_{how}.json", tuned)
        recognizer = recognizer.with_search(**tuned["chosen"])
    for data, (out, stamp) in jobs.items():
        found, account = decode_set(recognizer, Path(data))
        folder = exp.parent if (exp / "model.safetensors").exists() else exp
        record = {**describe(recognizer, folder, how, Path(data).name, tuned), **account}
        write_decode(recognizer, found, out, record)
        stamp.write()
        speed = account["seconds_audio"] / max(account["seconds_wall"], 1e-6)
        print(
            f"speechkit decode: {out}: {len(found)} utterances, "
            f"{account['seconds_audio'] / 60:.1f} min of audio, {speed:.0f} times real time",
            file=sys.stderr,
        )
