"""Reads a release of Common Voice: a language's folder, its tables of clips, and lists of clips."""

from pathlib import Path

from speechkit.errors import InputError
from speechkit.text.reading import read_utf8

COLUMNS = "client_id", "path", "sentence"


def folder_of(place: Path, language: str) -> Path:
    """The folder of a language, whose name may have a region: `sv-SE` for sv; InputError for several."""
    found = [place / language] if (place / language).is_dir() else sorted(place.glob(f"{language}-*/"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{place}: which of {names} is {language}? make a link of that name to it")
    return found[0] if found else place / language


def read_clips(folder: Path, table: str) -> dict[str, tuple[str, str]]:
    """Clip (its file's name without .mp3) -> speaker and sentence, as a table of a language has them.

    Raises:
        InputError: no table, a column or a value is missing, a name is a path, or a clip comes twice.
    """
    path = folder / f"{table}.tsv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; is this a language of Common Voice?")
    head, *lines = read_utf8(path).removesuffix("\n").split("\n")
    names = head.split("\t")
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(f"{path}:1: no column {', '.join(missing)}")
    clips = {}
    for number, line in enumerate(lines, start=2):
        values = dict(zip(names, line.split("\t")))
        speaker, name, sentence = (" ".join(values.get(column, "").split()) for column in COLUMNS)
        clip = name.removesuffix(".mp3")
        if not (speaker and clip and sentence) or "/" in clip:
            raise InputError(f"{path}:{number}: needs a speaker, the name of a clip and a sentence")
        if clip in clips:
            raise InputError(f"{path}:{number}: {clip} comes a second time")
        clips[clip] = speaker, sentence
    return clips


def read_split(path: Path, clips: dict[str, tuple[str, str]]) -> list[str]:
    """The clips that a list names, one a line, with or without .mp3; all of them must be validated."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; --splits holds <language>/{{train,dev,test}}.txt")
    chosen = [line.strip().removesuffix(".mp3") for line in read_utf8(path).splitlines() if line.strip()]
    unknown = [clip for clip in chosen if clip not in clips]
    if unknown or not chosen:
        what = (
            f"not in validated.tsv: {len(unknown)} of {len(chosen)}, first {unknown[0]}"
            if unknown
            else "empty"
        )
        raise InputError(f"{path}: {what}; is it for this release?")
    return chosen
