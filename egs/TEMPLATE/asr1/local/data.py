"""Makes data/{train,dev,test} from CORPUS/{train,dev,test}.tsv: lines of audio path, speaker and text."""

import sys
from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError


def prepare(corpus: Path, out: Path) -> None:
    """Writes out/<set> for each set of the corpus."""
    for name in ("train", "dev", "test"):
        data, table = DataDir(), corpus / f"{name}.tsv"
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
            columns = line.split("\t")
            if len(columns) != 3:
                raise InputError(f"{table}:{number}: needs three columns: audio path, speaker, text")
            utterance = f"{columns[1]}-{Path(columns[0]).stem}"
            if utterance in data.wav:
                raise InputError(f"{table}:{number}: a second recording would be called {utterance}")
            data.wav[utterance] = str((corpus / columns[0]).resolve())
            data.utt2spk[utterance], data.text[utterance] = columns[1:]
        write_data_dir(data, out / name)


if __name__ == "__main__":
    try:
        prepare(*map(Path, sys.argv[1:3]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
