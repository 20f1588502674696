"""Makes data/<language>_<set> from Common Voice: data.py CORPUS SPLITS OUT --sources en,es --targets ky,nl

CORPUS holds <language>/clips/*.mp3 and <language>/{validated,dev,test}.tsv. Of a source come `labelled` (what
was validated, without speakers of dev.tsv and test.tsv) and `labelled_dev` (a part of dev.tsv). Of a target
come train, dev and test, whose ids stand in SPLITS/<language>/{train,dev,test}.txt, and `unlabelled`: what
was validated, without text, and without the speakers of its dev and test. (lhotse's recipe asks for columns
that older releases do not have, reads no lists of ids, and says nothing of clips that are missing.)
"""

import argparse
import sys
from pathlib import Path

from release import folder_of, read_clips, read_split

from speechkit.data.kaldi_dir import DataDir, write_data_dir
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.stamp import Stamp

SPLITS = "train", "dev", "test"


def collect(folder: Path, clips: dict[str, tuple[str, str]], complete: bool) -> tuple[DataDir, list[str]]:
    """Clips as a data set, and those whose audio is missing; InputError for these where all must be there."""
    data, lost = DataDir(folder), []
    for clip, (speaker, sentence) in clips.items():
        audio = folder / "clips" / f"{clip}.mp3"
        if not audio.is_file():
            if complete:
                raise InputError(
                    f"{audio}: no such file, and dev, test and the targets' train must be complete"
                )
            lost.append(clip)
            continue
        utterance = f"{speaker[:16]}-{clip}"
        data.wav[utterance], data.utt2spk[utterance] = str(audio.absolute()), speaker[:16]
        data.text[utterance] = sentence
    if not data.wav:
        raise InputError(f"{folder}: no clip of {len(clips)} is left or has audio")
    return data, lost


def without(clips: dict, held_out: dict, speakers: bool) -> dict:
    """The clips that are not held out, nor, if asked for, others of these speakers."""
    gone = {speaker for speaker, _ in held_out.values()} if speakers else set()
    return {clip: row for clip, row in clips.items() if clip not in held_out and row[0] not in gone}


def source_sets(folder: Path, speakers: bool, most: int) -> dict[str, dict]:
    """Set -> clips of a language with labels; of dev.tsv at most so many, spread over it."""
    clips, dev, test = (read_clips(folder, table) for table in ("validated", "dev", "test"))
    step = -(-len(dev) // most)
    chosen = dict(list(dev.items())[::step])
    return {"labelled": without(clips, dev | test, speakers), "labelled_dev": chosen}


def target_sets(folder: Path, splits: Path, speakers: bool) -> dict[str, dict]:
    """Set -> clips of a language to learn from little, whose lists lie in the folder `splits`.

    Raises:
        InputError: as `read_clips` and `read_split`; or two of the lists share a clip.
    """
    clips = read_clips(folder, "validated")
    lists = {name: read_split(splits / f"{name}.txt", clips) for name in SPLITS}
    sets = {name: {clip: clips[clip] for clip in chosen} for name, chosen in lists.items()}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        if shared := sorted(sets[one].keys() & sets[other].keys()):
            raise InputError(f"{splits}: {one}.txt and {other}.txt share {shared[0]}")
    return {**sets, "unlabelled": without(clips, sets["dev"] | sets["test"], speakers)}


def prepare(args: argparse.Namespace) -> None:
    """Writes every set that is not as it should be; clips without audio are listed in lost.txt beside it."""
    speakers = args.held_out == "speakers"
    for language in [*args.sources, *args.targets]:
        folder = folder_of(args.corpus, language)
        if language in args.sources:
            sets = source_sets(folder, speakers, args.most_dev)
        else:
            sets = target_sets(folder, folder_of(args.splits, language), speakers)
        for name, clips in sets.items():
            out = args.out / f"{language}_{name}"
            data, lost = collect(folder, clips, complete=name in SPLITS)
            data.tables["utt2lang"] = dict.fromkeys(data.utt2spk, language)
            if name == "unlabelled":
                data.text.clear()
            stamp = Stamp(out / "wav.scp", "data", [data.rows(), lost], [Path(__file__)])
            if stamp.fresh():
                continue
            write_data_dir(data, out)
            write_text(out / "lost.txt", "".join(f"{clip}\n" for clip in lost))
            stamp.write()
            left_out = f"; {len(lost)} without audio, in lost.txt" if lost else ""
            print(f"{out}: {len(data.utt2spk)} utterances, {len(data.speakers)} speakers{left_out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for name in ("corpus", "splits", "out"):
        parser.add_argument(name, type=Path)
    for name in ("sources", "targets"):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), required=True)
    parser.add_argument("--held-out", choices=("speakers", "clips"), default="speakers")
    parser.add_argument("--most-dev", type=int, default=1000)
    try:
        prepare(parser.parse_args())
    except (InputError, OSError) as error:
        sys.exit(f"local/data.py: error: {error}")
