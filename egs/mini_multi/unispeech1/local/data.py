#!/usr/bin/env python3
"""Stage 1: every set of the synthesised corpus as a Kaldi directory.

    local/data.py downloads/mini_multi data

Writes data/<language>_<set> with utt2lang and utt2cond; sets of speech without labels get no text (what was
said is in downloads/mini_multi/<language>_unlabelled/text.txt).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from languages import SIBLING

sys.path.insert(0, str(SIBLING))

from spoken_sets import as_data_dir, read_rows  # noqa: E402

from speechkit.data.kaldi_dir import write_data_dir  # noqa: E402
from speechkit.errors import InputError  # noqa: E402
from speechkit.stamp import Stamp  # noqa: E402

WITHOUT_TEXT = "unlabelled"


def prepare(corpus: Path, out: Path) -> None:
    """Writes a directory for every set of the corpus; one that is as it was keeps what was added to it.

    Raises:
        InputError: there is no corpus.
    """
    names = sorted(path.parent.name for path in corpus.glob("*/sentences.jsonl"))
    if not names:
        raise InputError(f"{corpus}: no sets of speech there; make the corpus first (stage 0)")
    for name in names:
        language, _, part = name.partition("_")
        rows = corpus / name / "sentences.jsonl"
        stamp = Stamp(out / name / "wav.scp", "data", str(corpus), [rows, Path(__file__)])
        if stamp.fresh():
            continue
        data = as_data_dir(read_rows(rows), corpus, part != WITHOUT_TEXT)
        data.tables["utt2lang"] = dict.fromkeys(data.utt2spk, language)
        write_data_dir(data, out / name)
        stamp.write()
        print(f"data: {out / name}: {len(data.wav)} utterances", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        prepare(args.corpus, args.out)
    except InputError as error:
        sys.exit(f"local/data.py: error: {error}")
