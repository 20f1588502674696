"""`speechkit bert-fit`: whether the vocabulary of a BERT fits a text, before anything is trained."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("bert", help="Hugging Face folder, or a hub name that is in transformers' cache")
    add("text", nargs="+", type=Path, help="texts: lines `utterance words...`")
    add(
        "--max-unknown",
        type=float,
        default=5.0,
        help="per cent of the pieces that may be [UNK]; more is an error (default: %(default)s)",
    )
    add(
        "--strip-accents",
        type=true_or_false,
        help="lose accents (default: as the checkpoint says, kept where it says nothing)",
    )
    add("--no-ids", type=true_or_false, default=False, help="files are sentences without utterance ids")
    add("overrides", nargs="*", help='normaliser: form=NFC case=lower punctuation=remove exceptions="\'"')


def run(args: argparse.Namespace) -> int:
    """Prints a report on each text; an error when one has too many unknown words, after all reports."""
    from speechkit.config import load_config
    from speechkit.errors import InputError, UsageError
    from speechkit.integrations.bert import open_bert
    from speechkit.text.bert_fit import check, lines, measure
    from speechkit.text.normalise import Config, Normaliser
    from speechkit.text.reading import read_sentences, read_text

    if not 0 <= args.max_unknown <= 100:
        raise UsageError(f"--max-unknown {args.max_unknown:g}: must be from 0 to 100 per cent")
    normaliser = Normaliser(load_config(Config, overrides=args.overrides))
    read = read_sentences if args.no_ids else read_text
    found = open_bert(args.bert, args.strip_accents)
    refused = []
    for path in dict.fromkeys(args.text):
        fit = measure(found.vocab, found.rules, read(path), found.positions, normaliser)
        print("\n".join(lines(str(path), fit, found.positions)))
        try:
            check(fit, args.max_unknown / 100, str(path))
        except InputError as error:
            refused.append(str(error))
    if refused:
        raise InputError("\n".join(refused))
    return 0
