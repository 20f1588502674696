#!/usr/bin/env python3
"""Stage 0: writes the mini_en corpus: sentences from a grammar, spoken by espeak-ng, as 16 kHz FLAC.

    local/synthesise.py --out downloads/mini_en --seed 1 --far-cues text --jobs 2

Makes <out>/<set>/{sentences.jsonl,text.txt,audio/*.flac} for each set of speech and <out>/text/text.txt.
The same seed gives the same bytes for any number of jobs (same versions of espeak-ng, sox, libsndfile).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
from sentences import CORPUS, FAR_CUES, SIZES, Sentence, write_sets
from spoken_sets import BABBLE_SENTENCES, make_babble, plan_rows, speak_set
from voices import BABBLE, VOICES

from speechkit.bin.__main__ import true_or_false
from speechkit.data import synthesis
from speechkit.data.synthesis import in_fresh_processes
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.stamp import Stamp


def plan_set(name: str, sentences: list[Sentence], seed: int, labelled: set[str]) -> list[dict]:
    """Decides who says each sentence and how it sounds.

    Returns:
        A row an utterance, as `plan_rows` gives it, and how the sentence was made.
    """
    rng = random.Random(f"{CORPUS} {seed} {name} voices")
    rows = []
    for sentence, row in zip(sentences, plan_rows(name, [s.text for s in sentences], VOICES[name], rng)):
        made = {
            "tags": sentence.tags(labelled),
            "kind": sentence.kind,
            "subject": sentence.subject,
            "object": sentence.object,
            "cued": sentence.cued,
        }
        told = {key: row[key] for key in ("utterance", "speaker", "text")}
        rows.append({**told, **made, **row})
    return rows


def background(seed: int) -> np.ndarray:
    """Voices that talk at once, about what no set says: `(N,)` float32 at 16 kHz."""
    rng = random.Random(f"{CORPUS} {seed} babble")
    sentences = write_sets(seed + 1, "speech", _BACKGROUND)["train"]
    (babble,) = in_fresh_processes(make_babble, [rng.sample([s.text for s in sentences], len(sentences))], 1)
    return babble


def write_corpus(
    out: Path, seed: int, far_cues: str, sizes: dict[str, int], wanted: list[str], jobs: int
) -> dict[str, float]:
    """Writes `out`/<set> for the sets that are wanted; returns set -> seconds of audio."""
    sets = write_sets(seed, far_cues, sizes)
    labelled = {word for sentence in sets["train"] for word in sentence.words}
    babble = background(seed)
    seconds = {}
    for name in wanted:
        if name == "text":
            write_text(out / name / "text.txt", "".join(f"{s.text}\n" for s in sets[name]))
        else:
            seconds[name] = speak_set(name, plan_set(name, sets[name], seed, labelled), out, babble, jobs)
    return seconds


_BACKGROUND = {name: 0 for name in SIZES} | {"train": len(BABBLE) * BABBLE_SENTENCES}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--out", type=Path, required=True, help="where the folders of the sets are made or replaced"
    )
    parser.add_argument("--sets", nargs="+", choices=SIZES, default=[*SIZES], help="which to make (all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--far-cues", choices=FAR_CUES, default="text", help="where far homophones have their cue"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes; does not change the result"
    )
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"sentences in {name} (default {size})")
    parser.add_argument("--force", type=true_or_false, default=False, help="true: make it again")
    args = parser.parse_args(argv)
    sizes = {name: getattr(args, name) for name in SIZES}
    for name, size in {**sizes, "jobs": args.jobs}.items():
        if size < 1:
            parser.error(f"--{name} must be at least 1, not {size}")
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(synthesis.__file__)]
    options = [args.seed, args.far_cues, sizes]
    try:
        stamps = {
            name: Stamp(args.out / name, "synthesise", options, sources, args.force) for name in args.sets
        }
        wanted = [name for name, stamp in stamps.items() if not stamp.fresh()]
        if not wanted:
            return 0
        start = time.monotonic()
        seconds = write_corpus(args.out, args.seed, args.far_cues, sizes, wanted, args.jobs)
        for name in wanted:
            stamps[name].write()
    except InputError as error:
        print(f"synthesise: error: {error}", file=sys.stderr)
        return 1
    audio = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())
    print(
        f"synthesise: {args.out}: minutes of speech: {audio}; {time.monotonic() - start:.1f} s",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
