#!/usr/bin/env python3
"""Stage 1: the synthesised corpus as Kaldi directories.

    local/data.py downloads/mini_av data

Writes data/clips_{train,dev,test} with video.scp (no text) and data/{train,dev,test_10db,test_0db,test_clean}
with text; utt2cond holds the kind of scene.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from plan import CLEAN, CLIPS, NOISY

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError


def as_data_dir(rows: list[dict], corpus: Path) -> DataDir:
    """One set: clips, or sound with text."""
    data = DataDir(utt2spk={row["utterance"]: row["speaker"] for row in rows})
    paths = {row["utterance"]: str(corpus / row["path"]) for row in rows}
    if "text" in rows[0]:
        data.wav, data.text = paths, {row["utterance"]: row["text"] for row in rows}
    else:
        data.tables["video.scp"] = paths
    data.tables["utt2cond"] = {row["utterance"]: row["scene"] for row in rows}
    return data


def prepare(corpus: Path, out: Path) -> None:
    """Writes everything.

    Raises:
        InputError: a set is missing.
    """
    for name in (*CLIPS, *NOISY, *CLEAN):
        path = corpus / name / "scenes.jsonl"
        if not path.is_file():
            raise InputError(f"{path}: no such file; make the corpus first (stage 0)")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        write_data_dir(as_data_dir(rows, corpus), out / name)
        print(f"data: {out / name}: {len(rows)} utterances", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        prepare(args.corpus, args.out)
    except InputError as error:
        sys.exit(f"local/data.py: error: {error}")
