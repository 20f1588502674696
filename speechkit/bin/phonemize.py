"""`speechkit phonemize --data data/en --out data/en_phn --language en-us`: text becomes phones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.errors import InputError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = (
        "Utterances in which espeak-ng changes the language, or with letters of another script, are dropped "
        "and listed in OUT/rejected.jsonl; from an evaluation set (its name begins with dev, test, eval or "
        "valid, or --evaluation true) nothing is dropped: the command fails."
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a data directory or text set")
    add("--out", type=Path, required=True, help="where the same set with phones for text goes")
    add("--language", required=True, help="as espeak-ng --voices names it: en-us, fr-fr, ky ...")
    add(
        "--source",
        choices=("espeak", "phonemizer", "lexicon", "grapheme"),
        default="espeak",
        help="where phones come from (default: %(default)s); phonemizer is the optional part `phones`",
    )
    add("--lexicon", type=Path, help="`word phone phone ...` lines, for --source lexicon")
    add(
        "--vocabulary",
        choices=("shared", "separate"),
        default="shared",
        help="shared: p; separate: (xx)p, another symbol in every language (default: %(default)s)",
    )
    add("--code", default="", help="code of the language in utt2lang and tags (default: en of en-us)")
    add(
        "--tones",
        type=true_or_false,
        default=False,
        help="write tones too, each as a symbol (default: false)",
    )
    add("--cache", type=Path, help="folder of phones found earlier (default: .phones beside OUT)")
    add("--max-drop", type=float, default=0.05, help="largest share of a training set to drop")
    add("--evaluation", type=true_or_false, help="nothing may be dropped (default: by the name of OUT)")
    add("--force", type=true_or_false, default=False, help="also when nothing changed")


def run(args: argparse.Namespace) -> None:
    """Writes the new directory, prints what was dropped and how many phones there are; skips itself."""
    from speechkit.data.kaldi_dir import check_output, read_data_dir, table_files, write_data_dir
    from speechkit.data.records import clear_records, read_records, record_files, write_records
    from speechkit.files import write_jsonl
    from speechkit.stamp import Stamp
    from speechkit.text.phonemize import Options, phonemize

    if not 0 <= args.max_drop <= 1:
        raise UsageError(f"--max-drop {args.max_drop}: a share lies between 0 and 1")
    if (args.lexicon is not None) != (args.source == "lexicon"):
        raise UsageError("--lexicon goes with --source lexicon, which needs it")
    check_output(args.out, [args.data])
    cache = args.cache or args.out.absolute().parent / ".phones"
    separate = args.vocabulary == "separate"
    options = Options(args.language, args.source, args.lexicon, separate, args.code, args.tones, cache)
    settings = {key: value for key, value in vars(args).items() if key not in ("force", "out", "cache")}
    inputs = [*table_files(args.data), *record_files(args.data), *([args.lexicon] if args.lexicon else [])]
    stamp = Stamp(args.out, "phonemize", settings, inputs, args.force)
    if stamp.fresh():
        return
    data = read_data_dir(args.data, need_audio=False)
    _check(data)
    spelt = phonemize(data.text, options)
    ledger = _account(data, spelt, args)
    kept = data.select(ledger.kept)
    kept.text = {utterance: " ".join(spelt[utterance].phones) for utterance in kept.text}
    kept.tables["utt2lang"] = dict.fromkeys(kept.utterances, options.tag)
    kept.tables.pop("word_tags", None)  # a tag for each word, and there are no words any more
    records = read_records(args.data, kept.rows())
    clear_records(args.out)
    write_data_dir(kept, args.out)
    write_records(records, args.out)
    write_jsonl(args.out / "rejected.jsonl", [vars(fate) for fate in ledger.dropped])
    stamp.write()
    _report(args.out, kept.text, ledger)


def _check(data) -> None:
    """Refuses what has no text, and what holds several languages."""
    if not data.text:
        raise InputError(f"{data.path / 'text'}: no such file; there is nothing to turn into phones")
    languages = sorted(set(data.tables.get("utt2lang", {}).values()))
    if len(languages) > 1:
        raise InputError(
            f"{data.path / 'utt2lang'}: {len(languages)} languages ({', '.join(languages[:5])}); "
            "phones are of one language: take a part for each (speechkit subset --utt-list)"
        )


def _account(data, spelt: dict, args: argparse.Namespace):
    """Every utterance's fate; InputError when too many must be dropped."""
    from speechkit.data.durations import told_seconds
    from speechkit.data.fix import kind_of
    from speechkit.data.ledger import Ledger

    evaluation = kind_of(args.out) == "evaluation" if args.evaluation is None else args.evaluation
    ledger = Ledger("phonemize", "evaluation" if evaluation else "train", args.max_drop)
    seconds = told_seconds(data) or {}
    for utterance in data.utterances:
        found, length = spelt[utterance], seconds.get(utterance, 0.0)
        if found.reason:
            ledger.drop(utterance, length, found.reason, found.detail)
        else:
            ledger.keep(utterance, length)
    try:
        ledger.check(data.utterances)
    except InputError as error:
        options = "--evaluation false --max-drop 1" if evaluation else "--max-drop 1"
        raise InputError(f"{error}; {options} lists them in {args.out}/rejected.jsonl") from None
    if not ledger.kept:
        raise InputError(f"{data.path}: no utterance can be kept")
    return ledger


def _report(out: Path, text: dict[str, str], ledger) -> None:
    from speechkit.text.phone_inventory import odd_symbols
    from speechkit.text.phone_tags import strip_tag

    if ledger.dropped:
        print(ledger.summary(), file=sys.stderr)
    phones = {phone for line in text.values() for phone in line.split()}
    odd = odd_symbols({strip_tag(phone) for phone in phones})
    if odd:
        print(f"speechkit phonemize: not IPA, but taken as they are: {' '.join(odd[:20])}", file=sys.stderr)
    print(
        f"speechkit phonemize: {out}: {len(text)} utterances with {len(phones)} different phones, "
        f"{len(ledger.dropped)} dropped" + (f" (see {out}/rejected.jsonl)" if ledger.dropped else ""),
        file=sys.stderr,
    )
