"""Makes data/{train,dev,test} of TED-LIUM 3: data.py CORPUS OUT

CORPUS is the folder `TEDLIUM_release-3`; its legacy distribution, `legacy/<set>/{sph,stm}`, has the dev and
test sets of earlier releases. An STM file has a line for each segment of a talk:

    talk channel speaker start end <labels> words ...

lhotse's reader is not used: it says neither how much it leaves out nor where a line is wrong, and takes
segments of noise alone.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, Segment, write_data_dir
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.text.reading import read_utf8

SETS = ("train", "dev", "test")
GAP, IGNORED = "inter_segment_gap", "ignore_time_segment_in_scoring"
TAG = re.compile(r"<[^<>\s]*>|\{[^{}\s]*\}|\[[^][\s]*\]")
VARIANT = re.compile(r"\(\d+\)")
SPLIT = re.compile(r"\s+'(?=\w)")
LABELS = re.compile(r"<[^<>]*>")


def clean(words: str) -> tuple[str, Counter[str]]:
    """The words of a segment as they are recognised, and how often each tag was left out.

    Tags (`<unk>`, `{NOISE}`, `[NOISE]`) and numbers of pronunciations (`and(2)`) go, what was split before
    an apostrophe is joined (`it 's`), a single apostrophe goes, capitals become small.
    """
    tags = Counter(tag.lower() for tag in TAG.findall(words))
    text = SPLIT.sub("'", VARIANT.sub("", TAG.sub(" ", words)))
    return " ".join(word for word in text.lower().split() if word != "'"), tags


def read_stm(path: Path, counts: Counter[str]) -> list[tuple[Segment, str]]:
    """Segments of a talk with words in them, in the file's order; others are only counted.

    Args:
        path: the STM file.
        counts: of segments that are left out, under the reason, and of tags; added to.

    Raises:
        InputError: a line is not one of an STM file.
    """
    found = []
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        segment, speaker, words = _fields(path, number, line)
        if speaker == GAP or words == IGNORED:
            counts[GAP if speaker == GAP else IGNORED] += 1
            continue
        text, tags = clean(words)
        counts += tags
        if text:
            found.append((segment, text))
        else:
            counts["without words"] += 1
    return found


def _fields(path: Path, number: int, line: str) -> tuple[Segment, str, str]:
    """The segment, its speaker and its words."""
    parts = line.split(maxsplit=6)
    expected = "expected: talk channel speaker start end <labels> words"
    if len(parts) < 6 or not LABELS.fullmatch(parts[5]):
        raise InputError(f"{path}:{number}: {expected}")
    talk, _, speaker, start, end = parts[:5]
    try:
        segment = Segment(talk, float(start), float(end))
    except ValueError:
        raise InputError(f"{path}:{number}: '{start} {end}' are no times; {expected}") from None
    if not 0 <= segment.start < segment.end < float("inf"):
        raise InputError(f"{path}:{number}: no segment lasts from {start} to {end} s")
    return segment, speaker, "".join(parts[6:]).strip()


def read_set(folder: Path) -> tuple[DataDir, Counter[str]]:
    """All segments of a set; InputError when a talk has no recording or no transcript."""
    audio = {path.stem: path for path in sorted(folder.glob("sph/*.sph"))}
    written = {path.stem: path for path in sorted(folder.glob("stm/*.stm"))}
    for talk in sorted(audio.keys() ^ written.keys()):
        what = f"stm/{talk}.stm" if talk in audio else f"sph/{talk}.sph"
        raise InputError(f"{folder}: no {what}; the copy of the corpus is not complete")
    data, counts = DataDir(folder), Counter()
    for path in written.values():
        for segment, text in read_stm(path, counts):
            talk, times = segment.recording, (segment.start, segment.end)
            utterance = "-".join([talk, *(f"{round(100 * time):07d}" for time in times)])
            if talk not in audio or utterance in data.text:
                what = "has no recording" if talk not in audio else f"has two segments at {times} s"
                raise InputError(f"{path}: talk {talk} {what}")
            data.wav[talk] = str(audio[talk].absolute())
            data.segments[utterance] = segment
            data.utt2spk[utterance], data.text[utterance] = talk, text
    if not data.text:
        raise InputError(f"{folder}: no segment; sph/*.sph and stm/*.stm are looked for")
    return data, counts


def prepare(corpus: Path, out: Path) -> None:
    """Writes out/<set>, and what was left out in left_out.txt; InputError when anything is missing."""
    for name in SETS:
        if not (corpus / "legacy" / name).is_dir():
            found = f"{corpus / 'legacy' / name}: no such folder"
            raise InputError(f"{found}; --corpus-dir names the folder TEDLIUM_release-3")
    sets = {name: read_set(corpus / "legacy" / name) for name in SETS}
    for name, (data, counts) in sets.items():
        write_data_dir(data, out / name)
        rows = [f"{what}\t{count}" for what, count in sorted(counts.items())]
        write_text(out / name / "left_out.txt", "".join(f"{row}\n" for row in rows))
        hours = sum(piece.end - piece.start for piece in data.segments.values()) / 3600
        print(f"{out / name}: {len(data.text)} segments of {len(data.wav)} talks, {hours:.2f} h")
        print(f"  left out: {'; '.join(rows) or 'nothing'}".replace("\t", " "))


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
