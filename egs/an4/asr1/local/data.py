"""Makes data/{train,dev,test} of AN4: data.py CORPUS OUT

CORPUS is the folder `an4` with `etc/an4_<set>.transcription`, lines `<s> WORDS </s> (an406-fcaw-b)`, and
`wav/<folder of the set>/fcaw/an406-fcaw-b.sph`. The speaker is the middle of a name. Every tenth training
speaker, in the order of their names, is kept for dev: sets share no speaker.
"""

import re
import sys
from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError
from speechkit.text.reading import read_utf8

FOLDERS = {"train": "an4_clstk", "test": "an4test_clstk"}
LINE = re.compile(
    r"(?:<s> )?(?P<words>.*?)(?: </s>)? \((?P<name>(?P<call>[^-()]+)-(?P<speaker>[^-()]+)-[^-()]+)\)"
)


def read_set(corpus: Path, part: str) -> DataDir:
    """One of the two sets of the release.

    Raises:
        InputError: a line that is no transcription, or one without its recording, by file and line.
    """
    path, data = corpus / f"etc/an4_{part}.transcription", DataDir()
    if not path.is_file():
        raise InputError(f"{path}: no such file; --corpus-dir names the folder an4 that has etc and wav")
    for number, line in enumerate(read_utf8(path).splitlines(), start=1):
        if not line.strip():
            continue
        found = LINE.fullmatch(line.strip())
        if not found or not found["words"].strip():
            raise InputError(
                f"{path}:{number}: expected `<s> WORDS </s> (an406-fcaw-b)`, got '{line.strip()}'"
            )
        audio = corpus / "wav" / FOLDERS[part] / found["speaker"] / f"{found['name']}.sph"
        if not audio.is_file():
            raise InputError(f"{path}:{number}: {audio} is not there; copy or download the corpus again")
        utterance = "-".join([found["speaker"], *found["name"].split("-")[::2]])
        data.wav[utterance] = str(audio.absolute())
        data.utt2spk[utterance], data.text[utterance] = found["speaker"], " ".join(found["words"].split())
    return data


def split(data: DataDir) -> tuple[DataDir, DataDir]:
    """Train and dev: every tenth speaker is dev's."""
    kept = set(data.speakers[9::10]) or {data.speakers[-1]}
    parts = DataDir(), DataDir()
    for utterance, speaker in data.utt2spk.items():
        part = parts[speaker in kept]
        part.wav[utterance], part.text[utterance] = data.wav[utterance], data.text[utterance]
        part.utt2spk[utterance] = speaker
    return parts


def prepare(corpus: Path, out: Path) -> None:
    """Writes out/{train,dev,test}; InputError when the corpus is not complete."""
    training, test = read_set(corpus, "train"), read_set(corpus, "test")
    if len(training.speakers) < 2:
        raise InputError(f"{corpus}: {len(training.speakers)} training speakers; copy it again")
    for name, data in zip(("train", "dev", "test"), (*split(training), test)):
        write_data_dir(data, out / name)
        print(f"{out / name}: {len(data.utt2spk)} utterances, {len(data.speakers)} speakers")


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
