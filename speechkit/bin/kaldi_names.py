"""The data scripts of Kaldi's utils/ under their names, with Kaldi's arguments, on top of our verbs.

`python -m speechkit.bin.kaldi_names subset_data_dir.sh --first data/train 100 data/train_100`. A command line
that is not understood exits 2, bad data 1. What the verbs check, these check too: so they are stricter than
Kaldi's (nothing is dropped silently, and a source that is broken is not copied).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from speechkit.bin.__main__ import main as verb
from speechkit.errors import InputError


def _parser(script: str, about: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(script, description=about, allow_abbrev=False)


def _flags(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, action="store_true")


def validate_data_dir(argv: list[str]) -> int:
    """validate_data_dir.sh [--no-feats] [--no-text] [--no-wav] [--no-spk-sort] [--non-print] <data-dir>."""
    parser = _parser("validate_data_dir.sh", "Checks a data directory.")
    _flags(parser, "--no-feats", "--no-text", "--no-wav", "--non-print")
    parser.add_argument(
        "--no-spk-sort", action="store_true", help="always so: an order by speaker is only a warning here"
    )
    parser.add_argument("data")
    args = parser.parse_args(argv)
    if not args.no_feats and not Path(args.data, "feats.scp").exists():
        raise InputError(f"{args.data}/feats.scp: missing (if this is by design, give --no-feats)")
    options = ["--no-text", args.no_text, "--no-audio", args.no_wav, "--printable", not args.non_print]
    return verb(["validate", args.data, "--allow-pipes", "true", *_strings(options)])


def _strings(options: list[str | bool]) -> list[str]:
    return [str(option).lower() if isinstance(option, bool) else option for option in options]


def fix_data_dir(argv: list[str]) -> int:
    """fix_data_dir.sh <data-dir> [options of `speechkit fix`]."""
    return verb(["fix", "--allow-pipes", "true", *argv])


def subset_data_dir(argv: list[str]) -> int:
    """subset_data_dir.sh [--speakers|--shortest|--first|--last|--per-spk] <srcdir> <num-utt> <destdir>."""
    parser = _parser("subset_data_dir.sh", "Takes part of a data directory; by default a random part.")
    choice = parser.add_mutually_exclusive_group()
    for name in ("--speakers", "--shortest", "--first", "--last", "--per-spk"):
        choice.add_argument(name, dest="choice", action="store_const", const=name)
    choice.add_argument("--utt-list", metavar="FILE")
    choice.add_argument("--spk-list", metavar="FILE")
    parser.add_argument("--seed", default="0")
    parser.add_argument("arguments", nargs="+", metavar="srcdir [num-utt] destdir")
    args = parser.parse_args(argv)
    listed = args.utt_list or args.spk_list
    if len(args.arguments) != (2 if listed else 3):
        parser.error("expected <srcdir> <destdir> after a list, else <srcdir> <num-utt> <destdir>")
    if listed:
        chosen = ["--utt-list" if args.utt_list else "--spk-list", listed]
    else:
        count = args.arguments.pop(1)
        if args.choice in ("--speakers", "--per-spk"):
            chosen = [{"--per-spk": "--per-speaker"}.get(args.choice, args.choice), count]
        else:
            chosen = ["--count", count, "--pick", (args.choice or "--random")[2:]]
    return verb(["subset", *args.arguments, *chosen, "--seed", args.seed])


def combine_data(argv: list[str]) -> int:
    """combine_data.sh [--extra-files 'a b'] <dest> <src1> <src2> ...; all tables that all sources have."""
    parser = _parser(
        "combine_data.sh", "Joins data directories; tables that one lacks are left out and named."
    )
    parser.add_argument("--extra-files", default="", help="tables that every source must have")
    parser.add_argument("dest")
    parser.add_argument("sources", nargs="+")
    args = parser.parse_args(argv)
    for name in args.extra_files.split():
        for source in args.sources:
            if not Path(source, name).exists():
                raise InputError(f"{source}/{name}: missing, named by --extra-files")
    return verb(["combine", args.dest, *args.sources, "--drop-partial", "true"])


def copy_data_dir(argv: list[str]) -> int:
    """copy_data_dir.sh [--utt-prefix p] [--spk-prefix p] [--utt-suffix s] [--spk-suffix s] <src> <dest>."""
    parser = _parser("copy_data_dir.sh", "Copies a data directory, with new ids if wanted.")
    names = ("--utt-prefix", "--spk-prefix", "--utt-suffix", "--spk-suffix")
    for name in names:
        parser.add_argument(name, default="")
    parser.add_argument("source")
    parser.add_argument("dest")
    args = parser.parse_args(argv)
    options = [f"{name}={getattr(args, name[2:].replace('-', '_'))}" for name in names]
    return verb(["combine", args.dest, args.source, *options])


def split_data(argv: list[str]) -> int:
    """split_data.sh [--per-utt] <data-dir> <num-to-split>."""
    parser = _parser("split_data.sh", "Writes <data-dir>/split<n>/1..n, or split<n>utt with --per-utt.")
    _flags(parser, "--per-utt")
    parser.add_argument("data")
    parser.add_argument("parts")
    args = parser.parse_args(argv)
    return verb(["split", args.data, args.parts, *_strings(["--per-utt", args.per_utt])])


def get_utt2dur(argv: list[str]) -> int:
    """get_utt2dur.sh <data-dir>: writes utt2dur, from segments or by decoding."""
    from speechkit.data.durations import utterance_seconds
    from speechkit.data.kaldi_dir import read_data_dir, write_data_dir

    parser = _parser("get_utt2dur.sh", "Writes utt2dur from segments, or else by decoding the audio.")
    parser.add_argument("data")
    data = read_data_dir(parser.parse_args(argv).data)
    data.tables.pop("utt2dur", None)
    seconds = utterance_seconds(data)
    data.tables["utt2dur"] = {utterance: f"{length:.6f}" for utterance, length in seconds.items()}
    write_data_dir(data, data.path)
    print(f"get_utt2dur.sh: {data.path}/utt2dur: {sum(seconds.values()) / 3600:.4f} hours", file=sys.stderr)
    return 0


def _lines(file: str | None) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Number, line and columns of each line of a file, or of standard input for None and `-`."""
    opened: BinaryIO = sys.stdin.buffer if file in (None, "-") else open(file, "rb")
    with opened:
        for number, line in enumerate(opened, 1):
            columns = line.split()
            if not columns:
                raise InputError(f"{file or 'standard input'}:{number}: blank line")
            yield number, line, columns


def utt2spk_to_spk2utt(argv: list[str]) -> int:
    """utt2spk_to_spk2utt.pl [utt2spk] > spk2utt; speakers and utterances in the order of the input."""
    parser = _parser("utt2spk_to_spk2utt.pl", "Turns utt2spk (default: standard input) into spk2utt.")
    parser.add_argument("utt2spk", nargs="?")
    file = parser.parse_args(argv).utt2spk
    speakers: dict[bytes, list[bytes]] = {}
    for number, _, columns in _lines(file):
        if len(columns) != 2:
            raise InputError(f"{file or 'standard input'}:{number}: expected 2 columns, found {len(columns)}")
        speakers.setdefault(columns[1], []).append(columns[0])
    for speaker, utterances in speakers.items():
        sys.stdout.buffer.write(b" ".join([speaker, *utterances]) + b"\n")
    return 0


def spk2utt_to_utt2spk(argv: list[str]) -> int:
    """spk2utt_to_utt2spk.pl [spk2utt] > utt2spk; in the order of the input, as in Kaldi: sort it."""
    parser = _parser("spk2utt_to_utt2spk.pl", "Turns spk2utt (default: standard input) into utt2spk.")
    parser.add_argument("spk2utt", nargs="?")
    file = parser.parse_args(argv).spk2utt
    pairs = []
    for number, _, columns in _lines(file):
        if len(columns) < 2:
            raise InputError(f"{file or 'standard input'}:{number}: a speaker without utterances")
        pairs += [(utterance, columns[0]) for utterance in columns[1:]]
    for utterance, speaker in pairs:
        sys.stdout.buffer.write(utterance + b" " + speaker + b"\n")
    return 0


def filter_scp(argv: list[str]) -> int:
    """filter_scp.pl [--exclude] [-f <field>] id_list [in.scp] > out.scp."""
    parser = _parser(
        "filter_scp.pl", "Prints the lines whose field (default: the first) is in the list of ids."
    )
    _flags(parser, "--exclude")
    parser.add_argument("-f", type=int, default=1, metavar="FIELD", dest="field")
    parser.add_argument("ids")
    parser.add_argument("scp", nargs="?")
    args = parser.parse_args(argv)
    if args.field < 1:
        parser.error("fields are counted from 1")
    ids = {columns[0] for _, _, columns in _lines(args.ids)}
    for number, line, columns in _lines(args.scp):
        if len(columns) < args.field:
            raise InputError(f"{args.scp or 'standard input'}:{number}: has no field {args.field}")
        if (columns[args.field - 1] in ids) != args.exclude:
            sys.stdout.buffer.write(line)
    return 0


SCRIPTS: dict[str, Callable[[list[str]], int]] = {
    "validate_data_dir.sh": validate_data_dir,
    "fix_data_dir.sh": fix_data_dir,
    "subset_data_dir.sh": subset_data_dir,
    "combine_data.sh": combine_data,
    "copy_data_dir.sh": copy_data_dir,
    "split_data.sh": split_data,
    "get_utt2dur.sh": get_utt2dur,
    "utt2spk_to_spk2utt.pl": utt2spk_to_spk2utt,
    "spk2utt_to_utt2spk.pl": spk2utt_to_utt2spk,
    "filter_scp.pl": filter_scp,
}


def main(argv: list[str]) -> int:
    """Runs one script by name; returns its exit status."""
    script, *rest = argv
    try:
        status = SCRIPTS[script](rest)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
    except BrokenPipeError:  # `| head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"{script}: error: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
