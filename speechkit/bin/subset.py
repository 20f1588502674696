"""`speechkit subset data/train data/train_1h --hours 1`: part of a data directory."""

from __future__ import annotations

import argparse
import sys

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("source", help="a data directory")
    parser.add_argument("output", help="where the part goes")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        "--hours", type=float, help="at most so many, each speaker in proportion; nested by seed"
    )
    choice.add_argument("--minutes", type=float, help="the same in minutes")
    choice.add_argument("--count", type=int, help="so many utterances, chosen by --pick")
    choice.add_argument("--speakers", type=int, help="whole speakers, at random, until so many utterances")
    choice.add_argument("--per-speaker", type=int, help="so many utterances of each speaker, evenly spread")
    choice.add_argument("--utt-list", help="the utterances that begin the lines of this file")
    choice.add_argument("--spk-list", help="the speakers that begin the lines of this file")
    parser.add_argument(
        "--pick", choices=("first", "last", "shortest", "random"), help="which ones --count takes"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random choices")
    parser.add_argument("--rate", type=int, default=16000, help="sample rate behind utt2num_samples")
    parser.add_argument("--allow-pipes", type=true_or_false, default=False, help="run pipes to learn lengths")
    parser.add_argument("--force", type=true_or_false, default=False, help="also when nothing changed")


def _choose(args: argparse.Namespace, data) -> list[str]:
    from speechkit.data import subset
    from speechkit.data.durations import utterance_seconds

    if args.hours is not None or args.minutes is not None:
        seconds = utterance_seconds(data, args.rate, args.allow_pipes)
        hours = args.hours if args.hours is not None else args.minutes / 60
        return subset.by_hours(data, hours, seconds, args.seed)
    if args.count is not None:
        shortest = args.pick == "shortest"
        seconds = utterance_seconds(data, args.rate, args.allow_pipes) if shortest else None
        return subset.by_count(data, args.count, args.pick or "random", args.seed, seconds)
    if args.speakers is not None:
        return subset.by_speakers(data, args.speakers, args.seed)
    if args.per_speaker is not None:
        return subset.per_speaker(data, args.per_speaker)
    if args.utt_list is not None:
        return subset.by_list(data, args.utt_list, "utterance")
    return subset.by_list(data, args.spk_list, "speaker")


def run(args: argparse.Namespace) -> None:
    """Chooses and writes; skips itself when nothing changed."""
    from speechkit.data.kaldi_dir import check_output, read_data_dir, table_files, write_data_dir
    from speechkit.data.records import clear_records, read_records, record_files, write_records
    from speechkit.errors import UsageError
    from speechkit.stamp import Stamp

    if args.pick and args.count is None:
        raise UsageError("--pick goes with --count")
    check_output(args.output, [args.source])
    lists = [path for path in (args.utt_list, args.spk_list) if path]
    options = {key: value for key, value in vars(args).items() if key not in ("force", "output")}
    inputs = [*table_files(args.source), *record_files(args.source), *lists]
    stamp = Stamp(args.output, "subset", options, inputs, args.force)
    if stamp.fresh():
        return
    data = read_data_dir(args.source)
    part = data.select(_choose(args, data))
    records = read_records(args.source, part.rows())
    clear_records(args.output)
    write_data_dir(part, args.output)
    write_records(records, args.output)
    stamp.write()
    print(
        f"speechkit subset: {args.output}: {len(part.utt2spk)} of {len(data.utt2spk)} utterances, "
        f"{len(part.speakers)} of {len(data.speakers)} speakers",
        file=sys.stderr,
    )
