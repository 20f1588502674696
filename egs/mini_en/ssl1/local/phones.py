#!/usr/bin/env python3
"""Which phone every 10 ms of speech hold, from the synthesiser that spoke it: phones.txt.

    local/phones.py ../asr1/downloads/mini_en dump dev test

Speaks the sentences of each set again, exactly as the corpus was made; noise, rooms and telephone lines,
which came after, do not move a phone. A line is `utterance sil sil h h ə ...`, a symbol for each 10 ms: what
is heard in their middle, without stress marks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

import soxr

from speechkit.data.synthesis import Mark, Speech, Synthesizer, Voice, in_fresh_processes
from speechkit.data.tables import render_table
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.stamp import Stamp
from speechkit.text.phone_inventory import ipa_phones

RATE = 16000
FRAME = 160  # samples of a symbol
SILENCE = "sil"


def frame_phones(speech: Speech, samples: int, language: str = "en-us") -> list[str]:
    """The phone in the middle of every complete frame, named as `speechkit phonemize` names it.

    Args:
        speech: what the synthesiser said.
        samples: length of the recording at 16 kHz.
        language: espeak-ng's name of the voice.
    """
    phones = [SILENCE] * (samples // FRAME)
    marks = _whole([mark for mark in speech.phones if mark.label.strip("_: ")], language)
    following = [mark.start for mark in marks[1:]] + [samples / RATE]
    for mark, after in zip(marks, following):
        # A final l before a vowel comes as an event of no length, with its sound as a nameless one behind it.
        end = mark.end if mark.end > mark.start else after
        (phone,) = ipa_phones(mark.label, language)
        first, last = (math.ceil(seconds * RATE / FRAME - 0.5) for seconds in (mark.start, end))
        for frame in range(max(0, first), min(last, len(phones))):
            phones[frame] = phone
    return phones


def _whole(marks: list[Mark], language: str) -> list[Mark]:
    """The same phones, each one mark: palatalisation comes as an event of its own behind its phone."""
    whole: list[Mark] = []
    for mark in marks:
        if ipa_phones(mark.label, language):
            whole.append(mark)
        elif whole:
            whole[-1] = Mark(whole[-1].label + mark.label, whole[-1].start, mark.end)
    return whole


def speak_again(rows: list[dict]) -> list[list[str]]:
    """The phones of some rows of sentences.jsonl.

    Raises:
        InputError: what is said now is not as long as what was recorded.
    """
    synthesizer, found = Synthesizer(), []
    for row in rows:
        speech = synthesizer.speak(row["text"], Voice(**row["voice"]))
        length = len(soxr.resample(speech.samples.astype("float32"), speech.rate, RATE))
        if length != row["samples"]:
            raise InputError(
                f"{row['utterance']}: {length} samples now, {row['samples']} in the corpus; was it made by "
                "another version of espeak-ng? make it again with stage 0"
            )
        found.append(frame_phones(speech, length, row["voice"]["name"]))
    return found


def main() -> None:
    """Writes `phones.txt` into the data directory of every set named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("corpus", type=Path, help="what stage 0 made: a folder a set")
    parser.add_argument("dump", type=Path, help="folder of the data directories")
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    args = parser.parse_args()
    for name in args.sets:
        path = args.corpus / name / "sentences.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: no such file; make the corpus first (stage 0)")
        out = args.dump / name / "phones.txt"
        stamp = Stamp(out, "phones", [], [path, Path(__file__)])
        if stamp.fresh():
            continue
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        phones = list(in_fresh_processes(speak_again, rows, args.jobs))
        table = {row["utterance"]: " ".join(symbols) for row, symbols in zip(rows, phones)}
        write_text(out, render_table(table).decode())
        stamp.write()
        kinds = len({symbol for symbols in phones for symbol in symbols})
        frames = sum(map(len, phones))
        print(f"phones: {out}: {frames} frames of 10 ms, {kinds} phones", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/phones.py: error: {error}")
