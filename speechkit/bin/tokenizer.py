"""`speechkit tokenizer`: learn or build a tokenizer and report what is outside its vocabulary."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.config import load_config
from speechkit.errors import InputError
from speechkit.stamp import Stamp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    from speechkit.text.tokenizer import TOKENIZERS

    add = parser.add_argument
    add("--text", nargs="+", required=True, help="training text: lines `utterance words...`")
    add("--kind", choices=list(TOKENIZERS), default="char", help="what a token is (default: %(default)s)")
    add("--out", type=Path, required=True, help="tokenizer folder to write")
    add("--size", type=int, help="bpe, unigram: tokens in the vocabulary, special ones included")
    add(
        "--byte-fallback",
        type=true_or_false,
        default=False,
        help="bpe, unigram: spell what is unknown as bytes",
    )
    add("--model", type=Path, help="bpe, unigram: take over this sentencepiece model instead of training one")
    add(
        "--min-count",
        type=int,
        default=1,
        help="word: leave out words seen less often (default: %(default)s)",
    )
    add("--words", type=Path, help="word: list of words (first column) instead of the words of the text")
    add("--lexicon", type=Path, help="phone: `word phone phone ...` lines that spell the text's words")
    add("--vocab", type=Path, help="wordpiece: BERT's vocab.txt, or a BERT folder")
    add(
        "--pieces",
        choices=("pruned", "full"),
        default="pruned",
        help="wordpiece: the pieces of the text, or all of BERT's (default: %(default)s)",
    )
    add(
        "--strip-accents",
        type=true_or_false,
        help="wordpiece: lose accents (default: as the BERT folder says, kept where it says nothing)",
    )
    add(
        "--specials",
        choices=("none", "sep_only", "both"),
        default="none",
        help="wordpiece: which of [CLS] and [SEP] are tokens around every text (default: %(default)s)",
    )
    add(
        "--check",
        nargs="*",
        default=[],
        help="further text files to look through for unknown tokens",
    )
    add("--no-ids", type=true_or_false, default=False, help="files are sentences without utterance ids")
    add("--force", type=true_or_false, default=False, help="build again even when nothing changed")
    add("overrides", nargs="*", help='normaliser: form=NFC case=lower punctuation=remove exceptions="\'"')


def run(args: argparse.Namespace) -> int | None:
    """Builds the tokenizer, prints the report, writes the folder when all training text can be written."""
    from speechkit.text.normalise import Config, Normaliser
    from speechkit.text.reading import read_sentences, read_text
    from speechkit.text.tokenizer import build_tokenizer

    args.text, args.check = [Path(p) for p in args.text], [Path(p) for p in args.check]
    normaliser = Normaliser(load_config(Config, overrides=args.overrides))
    names = ("size", "byte_fallback", "model", "min_count", "words", "lexicon", "vocab")
    options = {name: getattr(args, name) for name in (*names, "pieces", "strip_accents", "specials")}
    inputs = [*args.text, *args.check, *(path for path in options.values() if isinstance(path, Path))]
    settings = [
        args.kind,
        {name: str(value) for name, value in options.items()},
        normaliser.hash,
        args.no_ids,
    ]
    stamp = Stamp(args.out, "tokenizer", settings, inputs, args.force)
    if stamp.fresh():
        return None
    read = read_sentences if args.no_ids else read_text
    files = {str(path): read(path) for path in dict.fromkeys([*args.text, *args.check])}
    sentences = [text for path in dict.fromkeys(args.text) for text in files[str(path)].values()]
    tokenizer = build_tokenizer(args.kind, sentences, normaliser, **options)
    _report(tokenizer, files, {str(path) for path in args.text})
    tokenizer.save(args.out)
    stamp.write()
    print(f"speechkit tokenizer: {args.out}: {len(tokenizer)} {args.kind} tokens", file=sys.stderr)
    return None


def _report(tokenizer, files: dict[str, dict[str, str]], training: set[str]) -> None:
    """Prints the coverage of every file; InputError names a training text without any known token."""
    from speechkit.text.coverage import cover, lines

    for name, texts in files.items():
        found = cover(tokenizer, texts)
        print("\n".join(lines(name, tokenizer, found)))
        if found.empty and name in training:
            # Sentences without ids are called file:line already.
            first = found.empty[0].removeprefix(f"{name}:")
            some = (
                f"{name}: utterance {first} has no token in the vocabulary ('{texts[found.empty[0]][:60]}')"
            )
            others = f", and {len(found.empty) - 1} others" if len(found.empty) > 1 else ""
            raise InputError(f"{some}{others}; mend or drop its text")
