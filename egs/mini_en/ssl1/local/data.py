#!/usr/bin/env python3
"""Stage 1: the formatted sets of mini_en/asr1, seen from here, and the second language.

    local/data.py ../asr1 downloads/second_language .

Writes dump/{train,dev,test} and data/unlabelled, whose tables name what lies below ../asr1, data/lm/words,
and data/second_language (without text: it is for pre-training only).
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, read_data_dir, table_files, write_data_dir
from speechkit.data.subset import read_ids
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.stamp import Stamp

SETS = ("train", "dev", "test")


def borrow(source: Path, out: Path) -> None:
    """Writes a formatted set of another recipe again, with paths that are right from this one.

    Args:
        source: `<recipe>/dump/<set>` or `<recipe>/<work>/dump/<set>`; its tables name files from `<recipe>`.
        out: the data directory to write.

    Nothing is written when the set is as it was: labels that were added since are kept.

    Raises:
        InputError: the set is missing, or names a file that is not there.
    """
    stamp = Stamp(out / "wav.scp", "borrow", str(source), table_files(source))
    if stamp.fresh():
        return
    data = read_data_dir(source)
    recipe = next((folder for folder in source.parents if (folder / "run.sh").is_file()), source.parents[1])

    def moved(rows: dict[str, str]) -> dict[str, str]:
        return {name: entry if os.path.isabs(entry) else f"{recipe}/{entry}" for name, entry in rows.items()}

    data.wav = moved(data.wav)
    for name in fnmatch.filter(data.tables, "feats*.scp"):
        data.tables[name] = moved(data.tables[name])
    first = next(iter(data.wav.values()))
    if not Path(first).is_file():
        raise InputError(f"{source}/wav.scp: {first}: no such file; run mini_en/asr1 to stage 2 again")
    write_data_dir(data, out)
    if (source / "features.json").is_file():  # which configuration the features were made with
        shutil.copyfile(source / "features.json", out / "features.json")
    stamp.write()
    print(f"data: {out}: {len(data.utt2spk)} utterances", file=sys.stderr)


def second_language(corpus: Path) -> DataDir:
    """The second language's speech; the speaker is what stands before the last hyphen of the name."""
    names = read_ids(corpus / "text.txt")
    data = DataDir(wav={name: str(corpus / "audio" / f"{name}.flac") for name in names})
    data.utt2spk = {name: name.rpartition("-")[0] for name in names}
    return data


def main() -> None:
    """Writes everything; InputError names what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("sibling", type=Path, help="where data and dump of mini_en/asr1 lie")
    parser.add_argument("second", type=Path, help="the second language, made by stage 0")
    parser.add_argument("work", type=Path, help="folder below which data and dump lie")
    args = parser.parse_args()
    for name in SETS:
        borrow(args.sibling / "dump" / name, args.work / "dump" / name)
    borrow(args.sibling / "data/unlabelled", args.work / "data/unlabelled")
    write_text(args.work / "data/lm/words", (args.sibling / "data/lm/words").read_text(encoding="utf-8"))
    write_data_dir(second_language(args.second), args.work / "data" / "second_language")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/data.py: error: {error}")
