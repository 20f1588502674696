"""`speechkit ngram train|score|convert`: n-gram language models in ARPA format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import InputError
from speechkit.stamp import Stamp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|score|convert")
    train = actions.add_parser("train", help="estimate a model with modified Kneser-Ney", allow_abbrev=False)
    train.add_argument("--text", nargs="+", type=Path, required=True, help="sentences, one a line")
    _add_ids(train)
    train.add_argument("--order", type=int, default=4, help="1 to 6 (default: %(default)s)")
    train.add_argument("--out", type=Path, required=True, help="ARPA file to write; .gz compresses")
    train.add_argument("--words", type=Path, help="vocabulary, first column; other words become <unk>")
    _add_tokenizer(train)
    train.add_argument(
        "--discount-fallback",
        type=true_or_false,
        default=False,
        help="discounts of 0.5, 1, 1.5 for an order whose counts are too few to estimate them",
    )
    train.add_argument(
        "--force", type=true_or_false, default=False, help="train again even when nothing changed"
    )
    score = actions.add_parser(
        "score", help="log10 probability of every line, perplexity", allow_abbrev=False
    )
    score.add_argument("--lm", type=Path, required=True, help="ARPA file")
    score.add_argument("--text", type=Path, required=True, help="sentences, one a line")
    _add_ids(score)
    _add_tokenizer(score)
    score.add_argument("--out", type=Path, help="file for the table instead of standard output")
    convert = actions.add_parser("convert", help="check an ARPA file and write it again", allow_abbrev=False)
    convert.add_argument("--lm", type=Path, required=True, help="ARPA file; .gz is read too")
    convert.add_argument("--out", type=Path, required=True, help="ARPA file to write; .gz compresses")


def _add_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ids", type=true_or_false, default=False, help="lines begin with an utterance id")


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    about = "folder of a tokenizer: the model's units are its tokens, for a search with lm_unit=token"
    parser.add_argument("--tokenizer", type=Path, help=about)


def run(args: argparse.Namespace) -> int | None:
    """Runs the chosen action."""
    return {"train": _train, "score": _score, "convert": _convert}[args.action](args)


def _sentences(path: Path, args: argparse.Namespace) -> dict[str, str]:
    """Sentences by line or utterance, as words or as the tokens of a tokenizer, between spaces."""
    from speechkit.text.reading import read_sentences, read_text

    sentences = read_text(path) if args.ids else read_sentences(path)
    if args.tokenizer is None:
        return sentences
    from speechkit.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(args.tokenizer)
    return {
        name: " ".join(tokenizer.vocab[token] for token in tokenizer.encode(text))
        for name, text in sentences.items()
    }


def _train(args: argparse.Namespace) -> None:
    from speechkit.lm import train_ngram, write_arpa
    from speechkit.lm.kneser_ney import FALLBACK
    from speechkit.text.reading import read_utf8

    inputs = [*args.text, *(path for path in (args.words, args.tokenizer) if path)]
    options = [
        args.order,
        args.discount_fallback,
        args.ids,
        args.words is not None,
        args.tokenizer is not None,
    ]
    stamp = Stamp(args.out, "ngram", options, inputs, args.force)
    if stamp.fresh():
        return
    lines = {path: _sentences(path, args) for path in args.text}
    sentences = [line for path in lines for line in lines[path].values()]
    names = [f"{path}: utterance {name}" if args.ids else name for path in lines for name in lines[path]]
    words = None
    if args.words:
        columns = [line.split() for line in read_utf8(args.words).split("\n")]
        words = list(dict.fromkeys(column[0] for column in columns if column))
    try:
        lm = train_ngram(sentences, args.order, words, FALLBACK if args.discount_fallback else None, names)
    except InputError as error:
        raise InputError(f"{error} (text: {', '.join(map(str, args.text))})") from None
    write_arpa(lm, args.out)
    stamp.write()
    counts = " + ".join(str(len(level)) for level in lm.levels)
    print(f"speechkit ngram: {args.out}: {counts} n-grams from {len(sentences)} sentences", file=sys.stderr)


def _score(args: argparse.Namespace) -> None:
    from speechkit.files import write_text
    from speechkit.lm import read_arpa

    sentences = _sentences(args.text, args)
    scores = read_arpa(args.lm).score_sentences(list(sentences.values()))
    rows = zip(sentences, scores.log10, scores.counts - 1, scores.oov)
    table = "".join(f"{name} {log10:.6f} {words} {oov}\n" for name, log10, words, oov in rows)
    if args.out:
        write_text(args.out, f"#{'utterance' if args.ids else 'line'} log10 words oov\n{table}")
    else:
        sys.stdout.write(table)
    unknown = f"without the {scores.oov.sum()} unknown of {(scores.counts - 1).sum()} words"
    print(
        f"speechkit ngram: {args.text}: log10 {scores.log10.sum():.4f}, "
        f"perplexity {scores.perplexity():.4f}, {scores.perplexity(with_oov=False):.4f} {unknown}",
        file=sys.stderr,
    )


def _convert(args: argparse.Namespace) -> None:
    from speechkit.lm import read_arpa, write_arpa

    lm = read_arpa(args.lm)
    write_arpa(lm, args.out)
    print(f"speechkit ngram: {args.out}: order {lm.order}, {len(lm.words)} words", file=sys.stderr)
