"""Corpora in miniature: the folders, names and transcripts of the real ones, a few short sounds in them.

Each function makes one corpus below a folder and returns its ids with their texts; layouts are those of the
releases on openslr.org and of Libri-Light.
"""

from __future__ import annotations

import json
import tarfile
from itertools import count
from pathlib import Path

import soundfile
from factories import make_wave, waveform

LIBRISPEECH = {  # part -> its speakers
    "train-clean-100": (19, 26),
    "train-clean-360": (14, 16),
    "train-other-500": (20, 25),
    "dev-clean": (84, 174),
    "dev-other": (116, 700),
    "test-clean": (61, 121),
    "test-other": (367, 533),
}
SENTENCES = (
    "MISTER QUILTER IS HERE",
    "IT ISN'T TOO LATE",
    "A BLACK FOX JUMPS",
    "WE SEE THE SEA",
    "GIVE HIM BACK HIS ZEBRA",
)
CHINESE = ("今天 天气 很 好", "我们 去 看 海", "他 喜欢 看书", "明天 会 下雨", "请 打开 窗户")
_seeds = count()


def _chapter(folder: Path, speaker: int, sentences: tuple[str, ...], seconds: float) -> dict[str, str]:
    """folder/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac and their .trans.txt."""
    chapter = 1000 + speaker
    name, place = f"{speaker}-{chapter}", folder / str(speaker) / str(chapter)
    texts = {f"{name}-{number:04d}": sentence for number, sentence in enumerate(sentences)}
    for number, utterance in enumerate(texts):
        make_wave(place / f"{utterance}.flac", seconds + 0.1 * number, seed=next(_seeds))
    lines = "".join(f"{utterance} {text}\n" for utterance, text in texts.items())
    (place / f"{name}.trans.txt").write_text(lines)
    return texts


def make_librispeech(
    folder: Path, parts: tuple[str, ...] = tuple(LIBRISPEECH), seconds: float = 2.2
) -> dict[str, dict[str, str]]:
    """<folder>/LibriSpeech/<part>/<speaker>/<chapter>/*.flac; ids and texts of each part."""
    corpus = folder / "LibriSpeech"
    made = {}
    for part in parts:
        chapters = [_chapter(corpus / part, s, SENTENCES, seconds) for s in LIBRISPEECH[part]]
        made[part] = {utterance: text for chapter in chapters for utterance, text in chapter.items()}
    rows = [f"{s} | F | {part} | 8.02 | Reader {s}\n" for part in parts for s in LIBRISPEECH[part]]
    (corpus / "SPEAKERS.TXT").write_text(";ID  |SEX| SUBSET |MINUTES| NAME\n" + "".join(rows))
    return made


def make_librilight_finetuning(folder: Path, seconds: float = 2.2) -> dict[str, dict[str, str]]:
    """<folder>/librispeech_finetuning/{1h/<0-5>,9h}/{clean,other}; ids and texts of 10min, 1h and 10h."""
    corpus = folder / "librispeech_finetuning"
    speakers = count(2000)
    parts = {}
    for place in [f"1h/{number}" for number in range(6)] + ["9h"]:
        parts[place] = {}
        for kind in ("clean", "other"):
            parts[place] |= _chapter(corpus / place / kind, next(speakers), SENTENCES[:4], seconds)
    (corpus / "phones").mkdir()
    tenths = {key: text for n in range(6) for key, text in parts[f"1h/{n}"].items()}
    return {"10min": parts["1h/0"], "1h": tenths, "10h": tenths | parts["9h"]}


def make_aishell(folder: Path, seconds: float = 1.2) -> dict[str, dict[str, str]]:
    """<folder>/aishell/data_aishell/{wav/<set>/<speaker>,transcript}: AISHELL-1."""
    root = folder / "aishell/data_aishell"
    made, lines = {}, []
    for part, speakers in {"train": (2, 3, 4), "dev": (724,), "test": (764,)}.items():
        made[part] = {}
        for speaker in speakers:
            for number, text in enumerate(CHINESE, 121):
                utterance = f"BAC009S{speaker:04d}W{number:04d}"
                make_wave(root / f"wav/{part}/S{speaker:04d}/{utterance}.wav", seconds, seed=next(_seeds))
                made[part][utterance] = text.replace(" ", "")
                lines.append(f"{utterance} {text}\n")
    (root / "transcript").mkdir()
    (root / "transcript/aishell_transcript_v0.8.txt").write_text("".join(lines), encoding="utf-8")
    return made


def pack_aishell(folder: Path, archive: Path) -> None:
    """What `make_aishell` made, as openslr.org packs it: speakers in archives of their own inside."""
    root = folder / "aishell/data_aishell"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / "transcript", "data_aishell/transcript")
        for speaker in sorted((root / "wav").glob("*/S*")):
            inner = folder / f"{speaker.name}.tar.gz"
            with tarfile.open(inner, "w:gz") as nested:
                nested.add(speaker, f"{speaker.parent.name}/{speaker.name}")
            tar.add(inner, f"data_aishell/wav/{inner.name}")
            inner.unlink()


BABEL = {  # language -> phase and code of its pack, sentences
    "vietnamese": ("BP_107", ("xin chào các bạn", "hôm nay trời đẹp", "hẹn gặp lại sau")),
    "swahili": ("OP1_202", ("habari ya asubuhi", "ninasoma kitabu leo", "tutaonana kesho")),
    "tamil": ("OP1_204", ("வணக்கம் எப்படி இருக்கீங்க", "நல்லா இருக்கேன்", "நாளைக்கு பார்க்கலாம்")),
}
BABEL_SIDES = {
    "training": [
        f"{n}_2012010{n % 10}_205740_{line}" for n in range(10001, 10007) for line in ("inLine", "outLine")
    ],
    "dev": ["20001_20120201_101500_inLine", "20001_20120201_101500_outLine"],
    "eval": ["30001_20120301_111500_inLine"],
}


def make_babel(folder: Path, language: str = "swahili") -> tuple[Path, dict[str, list[str]]]:
    """<folder>/<pack>/BABEL_<phase>/conversational/<part>/{audio/*.sph,transcription/*.txt}, 8 kHz mu-law.

    One recording is WAV of 48 kHz, as some packs have them; the part eval has no transcriptions.

    Returns:
        The pack, and the lines of text in the transcription of each side.
    """
    phase, (one, two, three) = BABEL[language]
    first, *rest = two.split()
    pieces = [
        *("<no-speech>", one, f"~ {first.capitalize()} <hes> {'_'.join(rest)} <breath>"),
        *(f"<click> *{first}* {first[:2]}- -{first[:2]} {three} ~", f"<foreign> {three}"),
    ]
    pack = folder / f"IARPA-babel{phase[-3:]}-v1.0/BABEL_{phase}"
    made = {}
    for part, sides in BABEL_SIDES.items():
        root = pack / "conversational" / part
        (root / "audio").mkdir(parents=True)
        (root / "transcription").mkdir()
        for side in sides:
            name = f"BABEL_{phase}_{side}"
            rate, kind = (48000, ".wav") if side.startswith("10001") else (8000, ".sph")
            options = (
                {"format": "WAV", "subtype": "PCM_24"}
                if kind == ".wav"
                else {"format": "NIST", "subtype": "ULAW"}
            )
            soundfile.write(
                root / "audio" / (name + kind), waveform(10.5, rate, next(_seeds)), rate, **options
            )
            if part == "eval":
                continue
            made[name] = pieces
            lines = "".join(f"[{2.1 * n:.3f}]\n{piece}\n" for n, piece in enumerate(pieces))
            (root / "transcription" / f"{name}.txt").write_text(f"{lines}[10.500]\n", encoding="utf-8")
    return pack.parent, made


def make_aishell3(folder: Path, seconds: float = 2.2) -> set[str]:
    """<folder>/aishell3/{train,test}/{wav/<speaker>,content.txt}, 44.1 kHz."""
    root, made = folder / "aishell3", set()
    for part, speaker in (("train", "SSB0005"), ("test", "SSB0009")):
        lines = []
        for number in range(1, 3):
            utterance = f"{speaker}{number:04d}"
            make_wave(root / part / "wav" / speaker / f"{utterance}.wav", seconds, 44100, next(_seeds))
            lines.append(f"{utterance}.wav\t广 guang3 州 zhou1\n")
            made.add(utterance)
        (root / part / "content.txt").write_text("".join(lines), encoding="utf-8")
    (root / "spk-info.txt").write_text("# speaker\nSSB0005\tB\tfemale\tnorth\nSSB0009\tB\tmale\tsouth\n")
    (root / "train/label_train-set.txt").write_text("# labels\nSSB00050001|guang3 zhou1|广州\n", "utf-8")
    return made


def make_aidatatang(folder: Path, seconds: float = 2.2) -> set[str]:
    """<folder>/aidatatang_200zh/{corpus/<set>/<speaker>,transcript}."""
    root, made, lines = folder / "aidatatang_200zh", set(), []
    for part, speaker in (("train", "G0013"), ("dev", "G0002"), ("test", "G0055")):
        utterance = f"T0055{speaker}S0001"
        make_wave(root / f"corpus/{part}/{speaker}/{utterance}.wav", seconds, seed=next(_seeds))
        lines.append(f"{utterance} {CHINESE[0]}\n")
        made.add(utterance)
    (root / "transcript").mkdir()
    (root / "transcript/aidatatang_200_zh_transcript.txt").write_text("".join(lines), encoding="utf-8")
    return made


def make_magicdata(folder: Path, seconds: float = 2.2) -> set[str]:
    """<folder>/magicdata/<set>/{<speaker>,TRANS.txt}."""
    root, made = folder / "magicdata", set()
    for part, speaker in (("train", "14_3466"), ("dev", "5_541"), ("test", "38_5716")):
        utterance = f"{speaker}_20170826171159"
        make_wave(root / part / speaker / f"{utterance}.wav", seconds, seed=next(_seeds))
        head = "UtteranceID\tSpeakerID\tTranscription\n"
        text = f"{head}{utterance}.wav\t{speaker}\t今天，天气很好。\n"
        (root / part / "TRANS.txt").write_text(text, encoding="utf-8")
        made.add(utterance)
    return made


def make_primewords(folder: Path, seconds: float = 2.2) -> set[str]:
    """<folder>/primewords/primewords_md_2018_set1/{audio_files/<0-f>/<00-ff>,set1_transcript.json}."""
    root = folder / "primewords/primewords_md_2018_set1"
    names = {"0a1b": "u1", "7c2d": "u2"}
    rows = [{"file": f"{n}.wav", "text": CHINESE[1], "user_id": user} for n, user in names.items()]
    for name in names:
        make_wave(root / "audio_files" / name[0] / name[:2] / f"{name}.wav", seconds, seed=next(_seeds))
    (root / "set1_transcript.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return set(names)


def make_stcmds(folder: Path, seconds: float = 2.2) -> set[str]:
    """<folder>/stcmds/ST-CMDS-20170001_1-OS/<id>.{wav,txt}."""
    root = folder / "stcmds/ST-CMDS-20170001_1-OS"
    names = {f"20170001P0000{n}A0001" for n in (1, 2)}
    for name in sorted(names):
        make_wave(root / f"{name}.wav", seconds, seed=next(_seeds))
        (root / f"{name}.txt").write_text("打开，窗户", encoding="utf-8")
    return names


def make_thchs30(folder: Path, seconds: float = 2.2) -> set[str]:
    """<folder>/thchs/data_thchs30/{data/*.wav.trn,<set>/*.wav}."""
    root, made = folder / "thchs/data_thchs30", set()
    for part, speaker in (("train", "A11"), ("dev", "A2"), ("test", "D31")):
        name = f"{speaker}_0"
        make_wave(root / part / f"{name}.wav", seconds, seed=next(_seeds))
        (root / "data").mkdir(exist_ok=True)
        (root / f"data/{name}.wav.trn").write_text("绿 是 阳春\nlv4 shi4\nl v4\n", encoding="utf-8")
        made.add(name)
    return made


def make_an4(folder: Path, seconds: float = 1.6) -> dict[str, dict[str, str]]:
    """<folder>/an4/{etc/an4_<set>.transcription,wav/<set>/<speaker>/*.sph}; ids and texts of both sets."""
    root, made = folder / "an4", {}
    (root / "etc").mkdir(parents=True)
    for part, speakers in (("train", ("fash", "fbbh", "mblb")), ("test", ("fcaw",))):
        place = {"train": "an4_clstk", "test": "an4test_clstk"}[part]
        lines, made[part] = [], {}
        for speaker in speakers:
            for number, text in enumerate(("ENTER SIX TWO", "P I T T S B U R G H", "YES", "MAY THIRD"), 251):
                name = f"an{number}-{speaker}-b"
                path = root / f"wav/{place}/{speaker}/{name}.sph"
                path.parent.mkdir(parents=True, exist_ok=True)
                sound = waveform(seconds, 16000, next(_seeds))
                soundfile.write(path, sound, 16000, format="NIST", subtype="PCM_16")
                made[part][f"{speaker}-an{number}-b"] = text
                lines.append(f"<s> {text} </s> ({name})\n" if part == "train" else f"{text} ({name})\n")
        (root / f"etc/an4_{part}.transcription").write_text("".join(lines))
    return made
