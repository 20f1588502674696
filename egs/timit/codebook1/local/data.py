"""Makes data/{train,test} from TIMIT: data.py CORPUS OUT

CORPUS, or a folder in it, holds TRAIN and TEST; below them lie <dialect>/<speaker>/<sentence>.{WAV,PHN,TXT},
named in capitals or not, as LDC93S1 was copied. (lhotse's recipe reads one such layout only, in capitals.)
Utterances are called <speaker>-<sentence>, as `fcjf0-sa1`.
"""

import sys
from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError
from speechkit.text.reading import read_utf8


def find_parts(corpus: Path) -> dict[str, Path]:
    """The folders train and test, in the corpus or one or two folders below."""
    if not corpus.is_dir():
        raise InputError(f"{corpus}: no such folder")
    for folder in (corpus, *sorted(corpus.glob("*/")), *sorted(corpus.glob("*/*/"))):
        parts = {path.name.lower(): path for path in folder.glob("*/") if path.is_dir()}
        if {"train", "test"} <= parts.keys():
            return {name: parts[name] for name in ("train", "test")}
    raise InputError(f"{corpus}: no folders TRAIN and TEST in it; --corpus-dir names TIMIT")


def read_words(path: Path) -> str:
    """The sentence of `first_sample end_sample words ...`."""
    words = read_utf8(path).split()
    if len(words) < 3 or not (words[0].isdecimal() and words[1].isdecimal()):
        raise InputError(f"{path}:1: expected: first_sample end_sample words")
    return " ".join(words[2:])


def read_part(folder: Path) -> DataDir:
    """All utterances of TRAIN or TEST; InputError when a recording has no phones or no text."""
    data = DataDir(folder)
    for audio in sorted(folder.glob("*/*/*")):
        if audio.suffix.lower() != ".wav" or "." in audio.stem:  # ._SA1.WAV; SA1.WAV.wav, a copy of SA1.WAV
            continue
        beside = {path.suffix.lower(): path for path in audio.parent.glob(f"{audio.stem}.*")}
        missing = [suffix for suffix in (".phn", ".txt") if suffix not in beside]
        if missing:
            raise InputError(f"{audio}: no {missing[0]} file beside it; is the copy of TIMIT complete?")
        speaker = audio.parent.name.lower()
        utterance = f"{speaker}-{audio.stem.lower()}"
        if utterance in data.wav:
            raise InputError(f"{audio}: {data.wav[utterance]} would have the same id, {utterance}")
        data.wav[utterance] = str(audio.absolute())
        data.utt2spk[utterance], data.text[utterance] = speaker, read_words(beside[".txt"])
    if not data.wav:
        raise InputError(f"{folder}: no recording <dialect>/<speaker>/<sentence>.WAV in it")
    return data


def prepare(corpus: Path, out: Path) -> None:
    """Writes out/{train,test}."""
    parts = {name: read_part(folder) for name, folder in find_parts(corpus).items()}
    for name, data in parts.items():
        write_data_dir(data, out / name)
        print(f"{out / name}: {len(data.utt2spk)} utterances, {len(data.speakers)} speakers")


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
