#!/usr/bin/env python3
"""Stage 0: writes the mini_multi corpus: nine languages, spoken by espeak-ng, as 16 kHz FLAC.

    local/corpus.py --out downloads/mini_multi --seed 1 --jobs 2

Makes <out>/<language>_<set>/{sentences.jsonl,text.txt,audio/*.flac}: train and dev of the languages that are
pre-trained on with labels, test, dev, train and unlabelled of the targets. The same seed gives the same bytes
for any number of jobs (same versions of espeak-ng, sox, libsndfile).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

from languages import CORPUS, SIBLING, SOURCE_VOICES, SOURCES, TARGET_VOICES, TARGETS, write_texts

sys.path.insert(0, str(SIBLING))

from spoken_sets import plan_rows, speak_set  # noqa: E402
from synthesise import background  # noqa: E402

from speechkit.bin.__main__ import true_or_false  # noqa: E402
from speechkit.data import synthesis  # noqa: E402
from speechkit.errors import InputError  # noqa: E402
from speechkit.files import atomic_folder, write_json  # noqa: E402
from speechkit.stamp import Stamp  # noqa: E402

# Sentences of a set. One lasts 3.4 s in English, about 2.5 s in the other languages.
SIZES = {
    "english": (700, "English, which is pre-trained on alone too"),
    "source": (480, "every other language that is pre-trained on with labels"),
    "source_dev": (30, "each of their dev sets"),
    "test": (240, "each target's test set"),
    "dev": (120, "each target's dev set"),
    "train": (120, "each target's labelled training set"),
    "unlabelled": (480, "each target's speech without text"),
}
TELEPHONE = "train", "dev", "test"  # sets that are heard over the telephone too


def sizes_of(language: str, sizes: dict[str, int]) -> dict[str, int]:
    """Set -> number of sentences of one language, in the order in which they are drawn."""
    if language in SOURCES:
        return {"dev": sizes["source_dev"], "train": sizes["english" if language == "en" else "source"]}
    return {name: sizes[name] for name in TARGET_VOICES}


def over_telephone(rows: list[dict], name: str) -> list[dict]:
    """The same utterances, said by the same voices, as the set `name`: at the far end of a telephone line."""
    moved = []
    for row in rows:
        utterance = f"{row['speaker']}-{name}-{row['utterance'].rpartition('-')[2]}"
        line = {"name": "telephone", "level_db": row["condition"]["level_db"]}
        path = f"{name}/audio/{utterance}.flac"
        moved.append({**row, "utterance": utterance, "condition": line, "path": path})
    return moved


def plan_corpus(
    languages: list[str], telephone: str, sizes: dict[str, int], seed: int
) -> dict[str, list[dict]]:
    """Decides what is said, by whom and how it sounds.

    Args:
        languages: keys of SOURCES and TARGETS.
        telephone: the target that is heard over the telephone too, or none.
        sizes: as in SIZES.
        seed: fixes everything.

    Returns:
        <language>_<set> -> a row an utterance, as `plan_rows` gives it. No other set has a telephone line.
    """
    sets = {}
    for language in languages:
        voices = SOURCE_VOICES if language in SOURCES else TARGET_VOICES
        voice = (SOURCES | TARGETS)[language]
        for part, texts in write_texts(language, sizes_of(language, sizes), seed).items():
            name = f"{language}_{part}"
            rng = random.Random(f"{CORPUS} {seed} {name} voices")
            sets[name] = plan_rows(name, texts, voices[part], rng, voice, without=("telephone",))
    if telephone != "none":
        for part in TELEPHONE:
            name = f"{telephone}_{part}_telephone"
            sets[name] = over_telephone(sets[f"{telephone}_{part}"], name)
    return sets


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked; `languages` and `sizes` are put together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, made or replaced as a whole"
    )
    parser.add_argument("--sources", default=",".join(SOURCES), help="languages of labelled pre-training")
    parser.add_argument("--targets", default=",".join(TARGETS), help="languages to learn from little")
    parser.add_argument("--telephone", default="none", help="a target, or none")
    for name, (size, what) in SIZES.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=size, help=f"sentences: {what} (default {size})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; no part of the result")
    parser.add_argument("--force", type=true_or_false, default=False, help="true: make it again")
    args = parser.parse_args(argv)
    args.languages, args.sizes = [], {name: getattr(args, name) for name in SIZES}
    for option, known in (("sources", SOURCES), ("targets", TARGETS)):
        asked = getattr(args, option).split(",")
        for language in asked:
            if language not in known or asked.count(language) > 1:
                parser.error(f"--{option}: '{language}': give some of {','.join(known)}, each once")
        args.languages += asked
    if args.telephone not in ("none", *args.targets.split(",")):
        parser.error(f"--telephone {args.telephone}: must be one of --targets, or none")
    for name, size in {**args.sizes, "jobs": args.jobs}.items():
        if size < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {size}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Makes the corpus unless it is there."""
    args = arguments(argv)
    folder = Path(__file__).parent
    sources = [*sorted(folder.glob("*.py")), folder / "grammars", *sorted(SIBLING.glob("*.py"))]
    options = {
        "seed": args.seed,
        "languages": args.languages,
        "telephone": args.telephone,
        "sizes": args.sizes,
    }
    stamp = Stamp(args.out, "corpus", options, [*sources, synthesis.__file__], args.force)
    if stamp.fresh():
        return
    start = time.monotonic()
    sets = plan_corpus(args.languages, args.telephone, args.sizes, args.seed)
    with atomic_folder(args.out) as out:
        babble = background(args.seed)
        seconds = {name: speak_set(name, rows, out, babble, args.jobs) for name, rows in sets.items()}
        write_json(out / "corpus.json", {**options, "seconds": seconds})
    stamp.write()
    audio = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())
    told = f"{args.out}: minutes of speech: {audio}; {time.monotonic() - start:.1f} s"
    print(f"corpus: {told}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/corpus.py: error: {error}")
