"""`speechkit bert-vocab`: learn the WordPiece vocabulary of a BERT that will be trained here."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.stamp import Stamp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add = parser.add_argument
    add("--text", nargs="+", type=Path, required=True, help="training text: lines `utterance words...`")
    add("--out", type=Path, required=True, help="folder to write, for model.bert.folder of model masked_lm")
    add("--size", type=int, help="most tokens, special ones included (default: as many as the text gives)")
    add(
        "--whole-words",
        type=true_or_false,
        default=False,
        help="a token is a word, others are [UNK] (default: characters and what is merged from them)",
    )
    add(
        "--min-count",
        type=int,
        default=1,
        help="leave out words, or merges, seen less often (default: %(default)s)",
    )
    add("--lower-case", type=true_or_false, default=False, help="an uncased BERT: capitals become small")
    add("--tokenizer", type=Path, help="folder of the CTC units, whose normaliser the text goes through")
    add("--no-ids", type=true_or_false, default=False, help="files are sentences without utterance ids")
    add("--force", type=true_or_false, default=False, help="build again even when nothing changed")


def run(args: argparse.Namespace) -> None:
    """Learns and writes the vocabulary; says how much of the text is one piece a word."""
    from speechkit.files import atomic_folder
    from speechkit.text.normalise import Normaliser
    from speechkit.text.reading import read_sentences, read_text
    from speechkit.text.tokenizer import load_tokenizer
    from speechkit.text.wordpiece_cut import Rules
    from speechkit.text.wordpiece_train import train_vocab, write_vocab

    settings = [args.size, args.whole_words, args.min_count, args.lower_case, args.no_ids]
    inputs = [*args.text, *([args.tokenizer] if args.tokenizer else [])]
    stamp = Stamp(args.out, "bert-vocab", settings, inputs, args.force)
    if stamp.fresh():
        return
    normaliser = load_tokenizer(args.tokenizer).normaliser if args.tokenizer else Normaliser()
    read = read_sentences if args.no_ids else read_text
    texts = [normaliser(text) for path in args.text for text in read(path).values()]
    rules = Rules(lower_case=args.lower_case)
    vocab = train_vocab(texts, rules, args.size, args.min_count, args.whole_words)
    with atomic_folder(args.out) as folder:
        write_vocab(folder, vocab, rules)
    stamp.write()
    print(f"speechkit bert-vocab: {args.out}: {len(vocab)} tokens{_coverage(texts, vocab, rules)}")


def _coverage(texts: list[str], vocab: list[str], rules) -> str:
    from speechkit.text.wordpiece_cut import UNKNOWN, Cutter

    cutter = Cutter(vocab, rules)
    cut = [cutter.pieces(word) for text in texts for word in cutter.words(text)]
    unknown = sum(pieces == [UNKNOWN] for pieces in cut)
    pieces = sum(map(len, cut)) / max(1, len(cut))
    return f"; {pieces:.3f} pieces a word, {100 * unknown / max(1, len(cut)):.2f} % of the words are [UNK]"
