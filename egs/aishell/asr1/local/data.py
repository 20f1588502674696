"""Makes data/{train,dev,test} of AISHELL-1, through lhotse's recipe: data.py CORPUS OUT

CORPUS holds `data_aishell` with `wav/<set>/<speaker>/<utterance>.wav` and `transcript` in it. Some hundred
recordings of the release have no transcript and are listed in lost.txt; a transcript without a recording is
a sign of an incomplete copy.
"""

import sys
from pathlib import Path

from speechkit.data.corpora import read_corpus
from speechkit.data.kaldi_dir import write_data_dir
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.text.reading import read_text

SETS = ("train", "dev", "test")
TRANSCRIPT = "data_aishell/transcript/aishell_transcript_v0.8.txt"


def check(corpus: Path) -> None:
    """Raises InputError unless every transcript has a recording, and every set has some."""
    if not (corpus / TRANSCRIPT).is_file():
        raise InputError(
            f"{corpus / TRANSCRIPT}: no such file; --corpus-dir names the folder of data_aishell"
        )
    wav = corpus / "data_aishell/wav"
    there = {name: {path.stem for path in (wav / name).glob("*/*.wav")} for name in SETS}
    gone = sorted(read_text(corpus / TRANSCRIPT).keys() - set().union(*there.values()))
    if gone:
        packed = sorted(path.name for path in wav.glob("*.tar.gz"))
        how = f"unpack {packed[0]} and the like beside it" if packed else "copy it again"
        first = f"{len(gone)} transcripts have no recording, the first is {gone[0]}"
        raise InputError(f"{wav}: not complete: {first}; {how}")
    for name in SETS:
        if not there[name]:
            raise InputError(f"{wav / name}: no recording in it; copy it again")


def prepare(corpus: Path, out: Path) -> None:
    """Writes out/<set>, with a line in lost.txt for each recording without a transcript.

    Raises:
        InputError: the corpus is not complete.
    """
    from lhotse.recipes import prepare_aishell

    check(corpus)
    sets, lost = read_corpus(prepare_aishell, corpus)
    for name in SETS:
        write_data_dir(sets[name], out / name)
        untold = [line for line in lost if f"/wav/{name}/" in line]
        write_text(out / name / "lost.txt", "".join(f"{line}\n" for line in untold))
        left_out = f"; {len(untold)} left out, see {out / name / 'lost.txt'}" if untold else ""
        count = f"{len(sets[name].utt2spk)} utterances, {len(sets[name].speakers)} speakers"
        print(f"{out / name}: {count}{left_out}")


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
