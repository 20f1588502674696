"""Makes data/train_{10min,1h,10h} from Libri-Light's fine-tuning sets: data.py CORPUS OUT

CORPUS is the folder `librispeech_finetuning`: `1h/{0..5}/{clean,other}` holds six sets of ten minutes,
`9h/{clean,other}` the rest of ten hours. The sets are nested: 10 minutes are 1h/0, one hour all of 1h, ten
hours 1h and 9h.
"""

import sys
from pathlib import Path

from speechkit.data.combine import combine
from speechkit.data.corpora import read_corpus
from speechkit.data.kaldi_dir import write_data_dir
from speechkit.errors import InputError

TENTHS = [f"1h/{number}/{kind}" for number in range(6) for kind in ("clean", "other")]
SETS = {"10min": TENTHS[:2], "1h": TENTHS, "10h": [*TENTHS, "9h/clean", "9h/other"]}


def prepare(corpus: Path, out: Path) -> None:
    """Writes out/train_<set>; InputError when anything is missing, for the sets are fixed."""
    from lhotse.recipes import prepare_librispeech

    missing = [part for part in SETS["10h"] if not (corpus / part).is_dir()]
    if missing:
        raise InputError(f"{corpus / missing[0]}: no such folder; is this librispeech_finetuning?")
    parts, lost = read_corpus(prepare_librispeech, corpus, dataset_parts=SETS["10h"])
    if lost:
        raise InputError(f"{corpus}: not complete: {lost[0]}")
    for name, members in SETS.items():
        data, _ = combine([parts[part] for part in members])
        write_data_dir(data, out / f"train_{name}")
        print(f"{out / f'train_{name}'}: {len(data.utt2spk)} utterances, {len(data.speakers)} speakers")


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
