"""Makes data/<part> for parts of LibriSpeech, through lhotse's recipe: data.py CORPUS OUT PART ...

CORPUS is the folder `LibriSpeech` with `train-clean-100`, `dev-clean` ... in it; a part becomes a Kaldi data
directory of its name with `_` for `-`.
"""

import sys
from pathlib import Path

from speechkit.data.corpora import read_corpus
from speechkit.data.kaldi_dir import write_data_dir
from speechkit.errors import InputError
from speechkit.files import write_text

PARTS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
)


def prepare(corpus: Path, out: Path, parts: list[str]) -> None:
    """Writes out/<part>; a training part may lack recordings (listed in lost.txt), the others may not."""
    from lhotse.recipes import prepare_librispeech

    for part in parts:
        if part not in PARTS:
            raise InputError(f"no part '{part}'; LibriSpeech has {', '.join(PARTS)}")
        if not (corpus / part).is_dir():
            raise InputError(f"{corpus / part}: no such folder; --corpus-dir names the one that holds it")
    for part in parts:
        sets, lost = read_corpus(prepare_librispeech, corpus, dataset_parts=[part])
        if lost and not part.startswith("train"):
            raise InputError(f"{corpus / part}: not complete, so no result on it would count: {lost[0]}")
        data, folder = sets[part], out / part.replace("-", "_")
        write_data_dir(data, folder)
        write_text(folder / "lost.txt", "".join(f"{line}\n" for line in lost))
        left_out = f"; {len(lost)} left out, see {folder / 'lost.txt'}" if lost else ""
        print(f"{folder}: {len(data.utt2spk)} utterances, {len(data.speakers)} speakers{left_out}")


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
