"""Makes data/{train,dev,test} from the Free Spoken Digit Dataset: <digit>_<speaker>_<take>.wav, 8 kHz.

The sets share no speaker: one is kept for dev, one for test, the others are for training.
"""

import argparse
import sys
from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def prepare(corpus: Path, out: Path, dev: str, test: str) -> None:
    """Writes out/{train,dev,test}; raises InputError when the corpus or a speaker is not there."""
    sets = {"train": DataDir(), "dev": DataDir(), "test": DataDir()}
    for audio in sorted(corpus.glob("*/[0-9]_*_*.wav")):
        digit, speaker, take = audio.stem.split("_")
        data = sets["dev" if speaker == dev else "test" if speaker == test else "train"]
        utterance = f"{speaker}-{digit}-{int(take):02d}"
        if utterance in data.wav:
            raise InputError(f"{audio}: the same take as {data.wav[utterance]}; give one copy of the corpus")
        data.wav[utterance] = str(audio.resolve())
        data.utt2spk[utterance], data.text[utterance] = speaker, DIGITS[int(digit)]
    if not any(data.wav for data in sets.values()):
        raise InputError(f"{corpus}: no recordings/<digit>_<speaker>_<take>.wav in it")
    speakers = sorted({speaker for data in sets.values() for speaker in data.speakers})
    for name, data in sets.items():
        if not data.wav:
            raise InputError(f"no recordings for {name}; the speakers are {', '.join(speakers)}")
    for name, data in sets.items():
        write_data_dir(data, out / name)
        print(f"{out / name}: {len(data.wav)} digits by {', '.join(data.speakers)}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dev", default="yweweler", help="speaker of the dev set")
    parser.add_argument("--test", default="george", help="speaker of the test set")
    args = parser.parse_args()
    try:
        prepare(args.corpus, args.out, args.dev, args.test)
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
