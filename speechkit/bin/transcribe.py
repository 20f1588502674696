"""`speechkit transcribe`: recognises audio files with a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("audio", nargs="+", help="audio files: WAV, FLAC, MP3, Ogg, Opus, SPHERE")
    parser.add_argument(
        "--model", required=True, help="experiment folder, such as exp/ctc/seed1, or a checkpoint"
    )
    parser.add_argument("--config", help="YAML of the search; greedy when not given")
    parser.add_argument(
        "--lexicon", help="words, or words and their spellings, that the search is confined to"
    )
    parser.add_argument("--lm", help="language model: an ARPA file, or the folder of a causal_lm")
    parser.add_argument("--bert", help="folder or hub name of the BERT that rescores (search.name=rescore)")
    parser.add_argument("--channel", type=int, help="channel of files with several, from 0")
    parser.add_argument("--device", help="such as cuda; a GPU is taken when there is one")


def run(args: argparse.Namespace) -> int:
    """Prints `file<tab>text` for each file; returns 1 when one could not be read, after trying them all."""
    from speechkit.decoding.recognizer import Recognizer
    from speechkit.errors import InputError

    recognizer = Recognizer.load(
        args.model, args.config, lexicon=args.lexicon, lm=args.lm, bert=args.bert, device=args.device
    )
    failed = 0
    for path in args.audio:
        if not Path(path).is_file():
            print(f"speechkit transcribe: error: {path}: no such file", file=sys.stderr)
            failed += 1
            continue
        try:
            text = recognizer.transcribe(path, channel=args.channel)
        except InputError as error:
            print(f"speechkit transcribe: error: {path}: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{path}\t{text}", flush=True)
    return 1 if failed else 0
