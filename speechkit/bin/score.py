"""`speechkit score`: hypotheses against references, with everything result.json needs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import InputError
from speechkit.files import hash_file
from speechkit.stamp import Stamp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("decodes", type=Path, nargs="+", metavar="DECODE_DIR", help="folders with the hypotheses in `text`")
    add("--data", type=Path, required=True, help="data directory with text, utt2spk and, if any, word_tags")
    add(
        "--unit",
        choices=["word", "phone"],
        default="word",
        help="what is counted; of a phone `(xx)p` only p (default: %(default)s)",
    )
    add("--normaliser", type=Path, help="tokenizer folder whose normaliser to use (default: the model's)")
    add("--cer-spaces", type=true_or_false, default=True, help="whether CER counts spaces (default: true)")
    add("--missing-as-deletions", type=true_or_false, default=False, help="count missing hypotheses as empty")
    add("--paired-with", type=Path, nargs="+", metavar="DECODE_DIR", help="scored decodes to compare with")
    add("--scorings", type=Path, help="log of scorings (default: test_scorings.jsonl in the exp folder)")
    add("--force", type=true_or_false, default=False, help="score again even when nothing changed")


def run(args: argparse.Namespace) -> int | None:
    """Scores every folder, prints Kaldi's lines, then the paired test if one is asked for."""
    for folder in args.decodes:
        _score(folder, args)
    if args.paired_with:
        from speechkit.metrics.result import read_utterances
        from speechkit.metrics.significance import paired_test

        sides = ([read_utterances(folder) for folder in side] for side in (args.decodes, args.paired_with))
        print(paired_test(*sides).line())
    return None


def _score(folder: Path, args: argparse.Namespace) -> None:
    from speechkit.metrics.decode_folder import open_decode

    decode = open_decode(folder, args.data.name)
    normaliser, origin = decode.normaliser(args.normaliser)
    tables = [
        args.data / name
        for name in ("text", "utt2spk", "utt2lang", "word_tags")
        if (args.data / name).is_file()
    ]
    settings = [args.unit, normaliser.hash, args.cer_spaces, args.missing_as_deletions, decode.record]
    lists = [folder / "nbest.jsonl"] if (folder / "nbest.jsonl").is_file() else []
    stamp = Stamp(folder / "result.json", "score", settings, [decode.text, *tables, *lists], args.force)
    if stamp.fresh():
        print((folder / "wer").read_text(encoding="utf-8"), end="")
        return
    from speechkit.files import write_text
    from speechkit.metrics.error_rate import score
    from speechkit.metrics.fused import read_fusion
    from speechkit.metrics.languages import by_language
    from speechkit.metrics.oracle import oracle
    from speechkit.metrics.result import build_result, count_scorings, kaldi_lines, write_result

    plain = _untagged(normaliser) if args.unit == "phone" else normaliser
    references, hypotheses, missing = _texts(decode, plain, args)
    speakers, tags = (_table(args.data / name) for name in ("utt2spk", "word_tags"))
    tags = tags if args.unit == "word" else None
    scores = score(references, hypotheses, speakers, tags, args.unit == "word", args.cer_spaces)
    spoken = _table(args.data / "utt2lang")
    words = ["speechkit", "score", "--data", str(args.data), str(folder)]
    scored = {
        "command": shlex.join(words + (["--unit", args.unit] if args.unit != "word" else [])),
        "normaliser": vars(normaliser.config) | {"hash": normaliser.hash, "from": origin},
        "reference_hash": hash_file(args.data / "text"),
        "cer_counts_spaces": args.cer_spaces,
        "missing_as_deletions": missing,
        "speakers": "utt2spk" if speakers is not None else "none: every utterance is its own",
    }
    result = build_result(decode, scores, args.unit, scored)
    if spoken is not None:
        result["languages"] = by_language(scores, spoken)
    result["oracle"] = oracle(folder / "nbest.jsonl", references, hypotheses, plain)
    fusion = read_fusion(folder / "nbest.jsonl", references, plain, tags)
    if fusion is not None:
        result["fusion"] = fusion.record()
        write_text(folder / "fusion.tsv", fusion.table())
    log = args.scorings or decode.exp / "test_scorings.jsonl"
    result["scored_times"] = count_scorings(log, result)
    write_result(folder, result, scores)
    stamp.write()
    print("\n".join(kaldi_lines(result)))
    if missing:
        print(f"speechkit score: {missing} missing hypotheses counted as deletions", file=sys.stderr)
    print(f"speechkit score: {folder / 'result.json'}: normaliser from {origin}", file=sys.stderr)


def _untagged(normaliser):
    """Normalises, and takes the language off every phone `(xx)p`."""
    from speechkit.text.phone_tags import strip_tags

    return lambda text: strip_tags(normaliser(text))


def _table(path: Path) -> dict[str, str] | None:
    from speechkit.text.reading import read_text

    return read_text(path, empty=False) if path.is_file() else None


def _texts(decode, normaliser, args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str], int]:
    """Normalised references and hypotheses, and how many hypotheses were filled in as empty."""
    from speechkit.text.reading import read_text

    raw = read_text(args.data / "text", empty=False)
    spell = _speller(decode, args) if args.unit == "phone" else None
    references = {utterance: normaliser(text) for utterance, text in raw.items()}
    if spell is not None:
        references = {utterance: spell(utterance, text) for utterance, text in references.items()}
    # An empty file of hypotheses is a decode of silence for one utterance, and a lost decode for more.
    hypotheses = {utterance: normaliser(text) for utterance, text in read_text(decode.text).items()}
    absent = [utterance for utterance in references if utterance not in hypotheses]
    if not args.missing_as_deletions:
        return references, hypotheses, 0
    return references, hypotheses | dict.fromkeys(absent, ""), len(absent)


def _speller(decode, args: argparse.Namespace):
    """For phones: how a reference becomes phones; by the tokenizer's lexicon when it has one."""
    folder = args.normaliser or decode.tokenizer_folder()
    if folder is None:
        return None
    from speechkit.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    if tokenizer.kind != "phone" or tokenizer.units.lexicon is None:
        return None

    def spell(utterance: str, text: str) -> str:
        missing = [word for word in text.split() if word not in tokenizer.units.lexicon]
        if missing:
            raise InputError(f"utterance {utterance}: '{missing[0]}' is not in the lexicon of {folder}")
        return tokenizer.units.join(tokenizer.units.split(text))

    return spell
