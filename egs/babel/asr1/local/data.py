"""Makes data/{train,dev,test} of a BABEL language: data.py PACK LANGUAGE OUT DEV_SHARE

PACK holds the folder `conversational` (here or further down) of an IARPA language pack. Its `training` gives
train and dev, without a speaker in common; its `dev` is the test set; `eval` came without transcriptions.
lhotse's reader is not used: one tag for several, a last text without a time lost, no `eval` without texts.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from transcripts import Rules, UnknownTag, clean, read_pieces

from speechkit.config import load_config
from speechkit.data.kaldi_dir import DataDir, Segment, write_data_dir
from speechkit.errors import InputError, nearest
from speechkit.files import write_text
from speechkit.text.normalise import Config, Normaliser

LANGUAGES = {"vietnamese": "107", "swahili": "202", "tamil": "204"}
NAME = re.compile(r"BABEL_[A-Z0-9]+_(\d{3})_(\d+)_(\d+)_(\d+)_(inLine|outLine)")
NORMALISER = Normaliser(Config(case="lower"))
TAGS = Path(__file__).parents[1] / "conf/tags.yaml"


@dataclass
class Side:
    """One side of a call: number of the speakers, audio, utterances (start, end, words), what is not used."""

    name: str
    number: str
    speaker: str
    audio: Path | None
    utterances: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)


def read_part(folder: Path, code: str, rules: Rules, test: bool = False) -> list[Side]:
    """Every side of which there is a recording or a transcription; InputError when a test part lacks one."""
    audio = {path.stem: path for suffix in ("wav", "sph") for path in folder.glob(f"audio/*.{suffix}")}
    written = {path.stem: path for path in folder.glob("transcription/*.txt")}
    sides, unknown = [], {}
    for name in sorted(audio.keys() | written.keys()):
        if not (match := NAME.fullmatch(name)) or match[1] != code:
            path = audio.get(name) or written[name]
            raise InputError(f"{path}: not the name of one side of a call in language {code}")
        speaker = f"{code}_{match[2]}_{'A' if match[5] == 'inLine' else 'B'}"
        side = Side(name, match[2], speaker, audio.get(name))
        if name not in audio or name not in written:
            side.lost.append(f"{name}: no {'recording' if name in written else 'transcription'}")
            if test:
                raise InputError(f"{folder}: not complete, so no result on it would count: {side.lost[0]}")
        else:
            _read_side(side, f"{speaker}_{match[3]}_{match[4]}", written[name], rules, test, unknown)
        sides.append(side)
    if unknown:
        (tag, where), *others = unknown.items()
        more = "".join(f", nor is '{tag}'" for tag, _ in others)
        raise InputError(f"{where}: '{tag}' is not in {TAGS.name}{more}; say there what becomes of it")
    if not any(side.utterances for side in sides):
        raise InputError(f"{folder}: no utterance; audio/*.sph and transcription/*.txt are looked for")
    return sides


def _read_side(
    side: Side, prefix: str, path: Path, rules: Rules, test: bool, unknown: dict[str, str]
) -> None:
    for piece in read_pieces(path):
        try:
            words, counts, against = clean(piece.text, rules, test)
        except UnknownTag as tag:
            unknown.setdefault(str(tag), f"{path}:{piece.line}")
            continue
        side.counts += counts
        utterance = f"{prefix}_{round(1000 * piece.start):07d}"
        against += ["no words"] if not words else []
        against += ["no duration"] if piece.end == piece.start else []
        if against:
            side.lost.append(f"{utterance}: {', '.join(dict.fromkeys(against))}: {piece.text}")
        else:
            side.utterances[utterance] = (piece.start, piece.end, NORMALISER(words))


def held_out(sides: list[Side], share: float) -> set[str]:
    """Numbers with about that share of all speech, drawn by their hash; the sides of a call stay together."""
    seconds: Counter[str] = Counter()
    for side in sides:
        for start, end, _ in side.utterances.values():
            seconds[side.number] += end - start
    chosen, rest = set(), share * seconds.total()
    for number in sorted(seconds, key=lambda number: hashlib.sha256(number.encode()).digest()):
        if rest > 0:
            chosen.add(number)
            rest -= seconds[number]
    if not 0 < len(chosen) < len(seconds):
        raise InputError(
            f"{len(seconds)} numbers of speakers in training: a dev share of {share:g} is not possible"
        )
    return chosen


def write(sides: list[Side], folder: Path, becomes: dict[str, str]) -> None:
    """Writes one set, with lost.txt and tags.txt, and says how large it is."""
    data, counts, lost = DataDir(), Counter(), []
    for side in sides:
        counts, lost = counts + side.counts, lost + side.lost
        for utterance, (start, end, words) in side.utterances.items():
            data.wav[side.name] = str(side.audio.absolute())
            data.segments[utterance] = Segment(side.name, start, end)
            data.utt2spk[utterance], data.text[utterance] = side.speaker, words
    write_data_dir(data, folder)
    write_text(folder / "lost.txt", "".join(f"{line}\n" for line in lost))
    rows = [f"{tag} {count} {becomes.get(tag, 'mark')}" for tag, count in sorted(counts.items())]
    write_text(folder / "tags.txt", "".join(f"{row}\n" for row in rows))
    hours = sum(segment.end - segment.start for segment in data.segments.values()) / 3600
    size = f"{len(data.utt2spk)} utterances, {len(data.speakers)} speakers, {hours:.2f} h"
    print(f"{folder}: {size}; {len(lost)} left out, see {folder / 'lost.txt'}")
    print(f"  tags: {'; '.join(rows)}")


def prepare(pack: Path, language: str, out: Path, share: float) -> None:
    """Writes out/{train,dev,test}; InputError when the pack is not complete, or a tag is not known."""
    roots = sorted(path for path in pack.rglob("conversational") if path.is_dir())
    if len(roots) != 1:
        found = f"{len(roots)} folders 'conversational' in it"
        raise InputError(f"{pack}: {found}; --corpus-dir names the pack of one language")
    if language not in LANGUAGES:
        raise InputError(f"no language '{language}'{nearest(language, list(LANGUAGES))}")
    code = LANGUAGES[language]
    rules = load_config(Rules, TAGS)
    training = read_part(roots[0] / "training", code, rules)
    test = read_part(roots[0] / "dev", code, rules, test=True)
    dev = held_out(training, share)
    write([side for side in training if side.number not in dev], out / "train", rules.tags)
    write([side for side in training if side.number in dev], out / "dev", rules.tags)
    write(test, out / "test", rules.tags | rules.test)


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
