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
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from acoustics import RATE, apply_condition, draw_condition
from sentences import CORPUS, FAR_CUES, SIZES, Sentence, write_sets
from voices import BABBLE, VOICES, draw_voice

from speechkit.bin.__main__ import true_or_false
from speechkit.data import synthesis
from speechkit.data.synthesis import Synthesizer, Voice, in_fresh_processes
from speechkit.errors import InputError
from speechkit.files import atomic_folder, write_json, write_jsonl, write_text
from speechkit.stamp import Stamp

BABBLE_SENTENCES = 4  # for each babbling voice


def plan_set(name: str, sentences: list[Sentence], seed: int, labelled: set[str]) -> list[dict]:
    """Decides who says each sentence and how it sounds.

    Returns:
        A row an utterance: what `sentences.jsonl` holds. `path` is relative to the corpus.
    """
    rng = random.Random(f"{CORPUS} {seed} {name} voices")
    rows, variants = [], []
    for number, sentence in enumerate(sentences):
        variants = variants or rng.sample(VOICES[name], len(VOICES[name]))
        voice = draw_voice(variants.pop(), rng)
        speaker = voice.variant.lower()
        utterance = f"{speaker}-{name}-{number:05d}"
        row = {
            "utterance": utterance,
            "speaker": speaker,
            "text": sentence.text,
            "tags": sentence.tags(labelled),
        }
        row |= {
            "kind": sentence.kind,
            "subject": sentence.subject,
            "object": sentence.object,
            "cued": sentence.cued,
        }
        row |= {
            "voice": vars(voice),
            "condition": draw_condition(rng),
            "path": f"{name}/audio/{utterance}.flac",
        }
        rows.append(row)
    return rows


def _speak(synthesizer: Synthesizer, text: str, voice: Voice) -> np.ndarray:
    """`(S,)` float32 at 16 kHz."""
    speech = synthesizer.speak(text, voice)
    return soxr.resample(speech.samples.astype(np.float32) / 32768, speech.rate, RATE)


def make_babble(texts: list[list[str]]) -> list[np.ndarray]:
    """Several voices at once, each saying its own sentences; one result for each list of texts."""
    synthesizer, results = Synthesizer(), []
    for own in texts:
        tracks = []
        for i, variant in enumerate(BABBLE):
            said = own[i * BABBLE_SENTENCES : (i + 1) * BABBLE_SENTENCES]
            tracks.append(
                np.concatenate([_speak(synthesizer, text, Voice(variant=variant)) for text in said])
            )
        length = min(map(len, tracks))
        results.append(sum(track[:length] for track in tracks))
    return results


def make_audio(rows: list[dict], out: Path, babble: np.ndarray) -> list[int]:
    """Writes the FLAC files of some rows; returns their lengths in samples."""
    synthesizer, lengths = Synthesizer(), []
    for row in rows:
        speech = apply_condition(
            _speak(synthesizer, row["text"], Voice(**row["voice"])), row["condition"], babble
        )
        samples = np.rint(speech * 32767).astype(np.int16)
        soundfile.write(out / row["path"], samples, RATE, format="FLAC", subtype="PCM_16")
        lengths.append(len(samples))
    return lengths


def write_corpus(out: Path, seed: int, far_cues: str, sizes: dict[str, int], jobs: int) -> dict[str, float]:
    """Writes everything below `out`; returns set -> seconds of audio."""
    sets = write_sets(seed, far_cues, sizes)
    labelled = {word for sentence in sets["train"] for word in sentence.words}
    rng = random.Random(f"{CORPUS} {seed} babble")
    background = rng.sample(
        [s.text for s in write_sets(seed + 1, "speech", _BACKGROUND)["train"]], _BACKGROUND["train"]
    )
    (babble,) = in_fresh_processes(make_babble, [background], 1)
    write_text(out / "text" / "text.txt", "".join(f"{s.text}\n" for s in sets.pop("text")))
    seconds = {}
    for name, sentences in sets.items():
        rows = plan_set(name, sentences, seed, labelled)
        (out / name / "audio").mkdir(parents=True)
        lengths = list(in_fresh_processes(partial(make_audio, out=out, babble=babble), rows, jobs))
        seconds[name] = sum(lengths) / RATE
        rows = [row | {"samples": length} for row, length in zip(rows, lengths)]
        write_jsonl(out / name / "sentences.jsonl", rows)
        write_text(out / name / "text.txt", "".join(f"{row['utterance']} {row['text']}\n" for row in rows))
    write_json(out / "corpus.json", {"seed": seed, "far_cues": far_cues, "sizes": sizes, "seconds": seconds})
    return seconds


_BACKGROUND = {name: 0 for name in SIZES} | {"train": len(BABBLE) * BABBLE_SENTENCES}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write, made or replaced as a whole"
    )
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
    try:
        stamp = Stamp(args.out, "synthesise", [args.seed, args.far_cues, sizes], sources, args.force)
        if stamp.fresh():
            return 0
        start = time.monotonic()
        with atomic_folder(args.out) as folder:
            seconds = write_corpus(folder, args.seed, args.far_cues, sizes, args.jobs)
        stamp.write()
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
