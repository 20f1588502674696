"""What is in every set: which scenes, at what level, and whose speech; no scene is in two sets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from scenes import KINDS

from speechkit.errors import InputError

CORPUS = "mini_av 1"
CLIP_SECONDS = 5.0
TALKING = 0.6  # share of clips with speech
CLIP_SNR_DB = -5.0, 15.0
TRAIN_SNR_DB = -5.0, 20.0
LEVEL_DB = -27.0, -20.0  # RMS of the whole below full scale

# Set of clips -> the set of mini_en whose speech is in them.
CLIPS = {"clips_train": "unlabelled", "clips_dev": "dev", "clips_test": "hard"}
# Set of noisy speech -> that of mini_en, and the lowest and highest ratio of speech to noise in dB.
NOISY = {
    "train": ("train", TRAIN_SNR_DB),
    "dev": ("dev", TRAIN_SNR_DB),
    "test_10db": ("test", (10.0, 10.0)),
    "test_0db": ("test", (0.0, 0.0)),
}
CLEAN = {"test_clean": "test"}


def scene_seed(name: str, number: int, seed: int) -> int:
    """The seed of a set's scene: 63 bits of a hash, so that no two sets share one."""
    digest = hashlib.sha256(f"{CORPUS} {seed} {name} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _scene(name: str, number: int, seed: int, rng: random.Random) -> dict:
    """Kinds come up equally often; the scene has been going on for a while."""
    return {
        "scene": KINDS[number % len(KINDS)],
        "scene_seed": scene_seed(name, number, seed),
        "start": round(rng.uniform(0, 10), 3),
    }


def plan_clips(name: str, speech: Sequence[dict], count: int, seed: int) -> list[dict]:
    """A row for each clip of a set.

    Args:
        name: of CLIPS.
        speech: rows of mini_en, which are spoken in turn.
        count: how many clips.
        seed: fixes everything.
    """
    rng, rows = random.Random(f"{CORPUS} {seed} {name}"), []
    for number in range(count):
        said = speech[number % len(speech)] if rng.random() < TALKING else None
        speaker = said["speaker"] if said else "nobody"
        row = {"utterance": f"{speaker}-{name}-{number:05d}", "speaker": speaker}
        row |= _scene(name, number, seed, rng)
        row |= {"speech": said and said["path"], "at": round(rng.uniform(0, 2), 3)}
        row |= {"snr_db": round(rng.uniform(*CLIP_SNR_DB), 1), "level_db": round(rng.uniform(*LEVEL_DB), 1)}
        rows.append({**row, "path": f"{name}/video/{row['utterance']}.mkv"})
    return rows


def plan_noisy(name: str, speech: Sequence[dict], seed: int) -> list[dict]:
    """A row for each utterance of mini_en, now in the sound of a scene; its name says of which set it is."""
    rng, rows = random.Random(f"{CORPUS} {seed} {name}"), []
    for number, said in enumerate(speech):
        utterance = f"{said['speaker']}-{name}-{number:05d}"
        row = {"utterance": utterance, "speaker": said["speaker"], "text": said["text"]}
        row |= {**_scene(name, number, seed, rng), "speech": said["path"], "at": 0.0}
        row |= {
            "snr_db": round(rng.uniform(*NOISY[name][1]), 1),
            "level_db": round(rng.uniform(*LEVEL_DB), 1),
        }
        rows.append({**row, "path": f"{name}/audio/{utterance}.flac"})
    return rows


def check_apart(sets: dict[str, list[dict]]) -> None:
    """No scene is in two sets, nor twice in one.

    Raises:
        InputError: one is; both utterances are named.
    """
    seen: dict[tuple[str, int], str] = {}
    for name, rows in sets.items():
        for row in rows:
            key, here = (row["scene"], row["scene_seed"]), f"{name}: {row['utterance']}"
            if key in seen:
                raise InputError(f"{here}: the scene of {seen[key]}; every clip and noise needs its own")
            seen[key] = here
