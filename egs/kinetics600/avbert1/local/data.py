"""Makes data/{train,val} from Kinetics-600: data.py CORPUS OUT [options]

CORPUS holds folders train and val: clips <video>_<start>_<end>.mp4 in them, or in a folder for each class.
The lists, train.csv and val.csv (or validate.csv), are there too, or in annotations, or in --lists; they have
the columns youtube_id, time_start and time_end, and labels, which nobody reads. Utterances are called
k600-<video>_<start>_<end>, their speakers k600-<video>. OUT/<set>/ledger.jsonl has the fate of each clip.
"""

import argparse
import csv
import re
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false
from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.data.ledger import Ledger
from speechkit.errors import InputError, Problem, ProblemsError
from speechkit.text.reading import REPORTED, read_utf8

PREFIX = "k600-"
FOLDERS = {"train": ("train",), "val": ("val", "validate", "validation")}
COLUMNS = ("youtube_id", "time_start", "time_end")
VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
CLIP = re.compile(rf"({VIDEO.pattern})_(\d{{6}})_(\d{{6}})")
SUFFIXES = (".mp4", ".mkv", ".webm")


def first(places: list[Path], what: str) -> Path:
    """The first place that is there; InputError names all of them otherwise."""
    for place in places:
        if place.exists():
            return place
    raise InputError(f"no {what}: looked for {', '.join(map(str, places))}")


def read_list(path: Path) -> dict[str, float]:
    """Clip -> its seconds; ProblemsError with a line for each broken row."""
    rows = csv.reader(read_utf8(path).lstrip("\ufeff").splitlines(), strict=True)
    try:
        head = [name.strip() for name in next(rows)]
        if missing := [name for name in COLUMNS if name not in head]:
            raise InputError(
                f"{path}:1: no column {missing[0]}; expected label,youtube_id,time_start,time_end,split"
            )
        at = [head.index(name) for name in COLUMNS]
        clips, problems = {}, []
        for row in filter(None, rows):
            try:
                name, seconds = read_row(row, len(head), at)
                clips[name] = seconds
            except ValueError as error:
                problems.append(Problem(str(path), rows.line_num, str(error), ",".join(row)[:60]))
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}: no CSV: {error}") from None
    if problems:
        raise ProblemsError(problems[:REPORTED])
    return clips


def read_row(row: list[str], columns: int, at: list[int]) -> tuple[str, float]:
    """A clip and its seconds; ValueError says what is wrong."""
    if len(row) != columns:
        raise ValueError(f"{len(row)} fields where the first line has {columns}")
    video, *times = (row[place].strip() for place in at)
    if not VIDEO.fullmatch(video):
        raise ValueError("youtube_id is not 11 letters, digits, - or _")
    if not all(re.fullmatch(r"\d{1,6}(\.0*)?", time) for time in times):
        raise ValueError("time_start and time_end must be whole seconds")
    start, end = (int(float(time)) for time in times)
    if start >= end:
        raise ValueError("time_end is not after time_start")
    return f"{video}_{start:06d}_{end:06d}", float(end - start)


def find_clips(folder: Path) -> dict[str, Path]:
    """Name without suffix -> file, of everything below the folder that has a suffix of video."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.stem, path.absolute())
    if not found:
        raise InputError(f"{folder}: no clip <video>_<start>_<end>.mp4 in it, nor in folders below")
    return found


def choose(clips: dict[str, float], files: dict[str, Path], held_out: set[str], ledger: Ledger) -> DataDir:
    """The data set of the clips that are there; the ledger gets the fate of each."""
    videos = {}
    for name, seconds in sorted(clips.items()):
        if name[:11] in held_out:
            ledger.drop(PREFIX + name, seconds, "of a video of val")
        elif name not in files:
            ledger.drop(PREFIX + name, seconds, "missing file", f"{name}.mp4")
        else:
            ledger.keep(PREFIX + name, seconds)
            videos[PREFIX + name] = str(files[name])
    speakers = {utterance: utterance[: len(PREFIX) + 11] for utterance in videos}
    return DataDir(utt2spk=speakers, tables={"video.scp": videos})


def prepare(
    corpus: Path, out: Path, lists: Path | None = None, most: float = 0.2, unlisted: bool = False
) -> None:
    """Writes out/{train,val}; InputError, before that, when lists are broken or too many clips are gone."""
    if not corpus.is_dir():
        raise InputError(f"{corpus}: no such folder")
    places = [lists] if lists else [corpus, corpus / "annotations"]
    files, clips, made = {}, {}, {}
    for name, folders in FOLDERS.items():
        files[name] = find_clips(first([corpus / folder for folder in folders], "folder"))
        clips[name] = read_list(first([p / f"{f}.csv" for p in places for f in folders], "list"))
    for name in FOLDERS:
        strangers = sorted(files[name].keys() - clips["train"].keys() - clips["val"].keys())
        if strangers:
            taken = "taken as well" if unlisted else "left out; --unlisted true takes them"
            say = f"{name}: {len(strangers)} clips in no list, such as {strangers[0]}: {taken}"
            print(say, file=sys.stderr)
        for match in filter(None, map(CLIP.fullmatch, strangers if unlisted else ())):
            clips[name][match[0]] = max(0.0, float(match[3]) - float(match[2]))
    for name in FOLDERS:
        held_out = {clip[:11] for clip in clips["val"]} if name == "train" else set()
        ledger = Ledger(f"clips of {name}", "train", most)
        made[name] = (choose(clips[name], files[name], held_out, ledger), ledger)
        if not ledger.kept:
            raise InputError(f"{corpus}: not one clip of the list of {name} is there")
        ledger.check()
    for name, (data, ledger) in made.items():
        write_data_dir(data, out / name)
        ledger.write(out / name / "ledger.jsonl")
        print(ledger.summary())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lists", type=Path)
    parser.add_argument("--max-missing", type=float, default=0.2)
    parser.add_argument("--unlisted", type=true_or_false, default=False)
    args = parser.parse_args()
    try:
        prepare(args.corpus, args.out, args.lists, args.max_missing, args.unlisted)
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
