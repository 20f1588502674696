"""Makes data/{dev,test} of AISHELL-1 and data/pretrain/<corpus>: data.py OUT NAME=FOLDER ...

AISHELL-1 (`aishell`) must be among the corpora: its train, dev and test are the labelled sets, and dev and
test stay out of pre-training. Of the others all parts are for pre-training.
"""

import importlib
import sys
from pathlib import Path

from speechkit.data.combine import combine
from speechkit.data.corpora import read_corpus, read_folder
from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError, nearest
from speechkit.files import write_text

# Each is lhotse.recipes.<name>.prepare_<name>; the folder given is the one that the recipe expects.
RECIPES = ("aishell", "aishell3", "aidatatang_200zh", "magicdata", "primewords", "stcmds", "thchs_30")
# Corpora that lhotse has no recipe for: all audio below the folder, by speaker folders, without text.
FOLDERS = ("didispeech", "pvtc", "magicdata_speech", "other")


def read(name: str, folder: str) -> tuple[dict[str, DataDir], list[str]]:
    """The parts of a corpus, and a line for each recording left out."""
    if name in FOLDERS:
        return {"all": read_folder(folder, prefix=f"{name}-")}, []
    if name not in RECIPES:
        raise InputError(f"no corpus '{name}'{nearest(name, [*RECIPES, *FOLDERS])}")
    recipe = importlib.import_module(f"lhotse.recipes.{name}")
    prefix = "" if name == "aishell" else f"{name}-"
    return read_corpus(getattr(recipe, f"prepare_{name}"), folder, prefix)


def prepare(out: Path, corpora: dict[str, str]) -> None:
    """Writes the sets; recordings left out are listed in lost.txt beside them."""
    if "aishell" not in corpora:
        raise InputError("AISHELL-1 is needed for fine-tuning: add aishell:/path/to/it to --corpora")
    for name, folder in corpora.items():
        parts, lost = read(name, folder)
        parts = {part: data for part, data in parts.items() if data.utt2spk}
        if name == "aishell":
            if missing := {"train", "dev", "test"} - parts.keys():
                raise InputError(f"{folder}: no utterance in {', '.join(sorted(missing))}")
            for part in ("dev", "test"):
                write(parts.pop(part), out / part, [])
        if not parts:
            raise InputError(f"{folder}: no utterance of {name} in it")
        write(combine(list(parts.values()), drop_partial=True)[0], out / "pretrain" / name, lost)


def write(data: DataDir, folder: Path, lost: list[str]) -> None:
    """Writes one set and says how large it is."""
    write_data_dir(data, folder)
    write_text(folder / "lost.txt", "".join(f"{line}\n" for line in lost))
    left_out = f"; {len(lost)} warnings in {folder / 'lost.txt'}" if lost else ""
    print(f"{folder}: {len(data.utt2spk)} utterances, {len(data.speakers)} speakers{left_out}")


if __name__ == "__main__":
    try:
        prepare(Path(sys.argv[1]), dict(pair.split("=", 1) for pair in sys.argv[2:]))
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
