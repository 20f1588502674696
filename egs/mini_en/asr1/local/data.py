#!/usr/bin/env python3
"""Stage 1: the synthesised corpus as Kaldi directories and text for language models.

    local/data.py downloads/mini_en data train dev test hard

Writes data/<set> for each (unlabelled without text; what was said is in
downloads/mini_en/unlabelled/text.txt), data/sentences (the text alone, as a text set) and data/lm: `text`,
`words` and `far_groups`, the words that only the person of a sentence tells apart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from language import FAR_PAIRS
from spoken_sets import as_data_dir, read_rows

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError
from speechkit.files import write_text

WITHOUT_TEXT = ("unlabelled",)


def with_tags(data: DataDir, rows: list[dict]) -> DataDir:
    """Adds `word_tags`, the class of every word."""
    data.tables["word_tags"] = {row["utterance"]: " ".join(row["tags"]) for row in rows}
    return data


def prepare(corpus: Path, out: Path, sets: list[str]) -> None:
    """Writes everything; nothing when a set is missing."""
    rows = {name: read_rows(corpus / name / "sentences.jsonl") for name in sets}
    text = corpus / "text" / "text.txt"
    if not text.is_file():
        raise InputError(f"{text}: no such file; make the corpus first (stage 0)")
    sentences = text.read_text(encoding="utf-8")
    for name in sets:
        data = as_data_dir(rows[name], corpus, name not in WITHOUT_TEXT)
        write_data_dir(with_tags(data, rows[name]) if data.text else data, out / name)
    # Labelled speech counts too: a very small text may lack some of its words.
    words = sorted(set(sentences.split()).union(*(row["text"].split() for row in rows["train"])))
    lines = sentences.splitlines()
    (out / "sentences").mkdir(parents=True, exist_ok=True)
    write_text(out / "sentences" / "text", "".join(f"s{i:06d} {line}\n" for i, line in enumerate(lines)))
    write_text(out / "lm" / "text", sentences)
    write_text(out / "lm" / "far_groups", "".join(f"{' '.join(pair)}\n" for pair in FAR_PAIRS))
    write_text(out / "lm" / "words", "".join(f"{word}\n" for word in words))
    counts = ", ".join(f"{name} {len(rows[name])}" for name in sets)
    print(f"data: {out}: utterances: {counts}; {len(lines)} sentences of text", file=sys.stderr)
    print(f"data: {out}/lm/words: {len(words)} words", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="+", help="of speech; train is one of them")
    args = parser.parse_args()
    try:
        prepare(args.corpus, args.out, args.sets)
    except InputError as error:
        sys.exit(f"local/data.py: error: {error}")
