"""One set of spoken sentences: who says what and how it sounds, the audio, and its Kaldi directory."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from acoustics import RATE, apply_condition, draw_condition
from voices import BABBLE, draw_voice

from speechkit.data.kaldi_dir import DataDir
from speechkit.data.synthesis import Synthesizer, Voice, in_fresh_processes
from speechkit.errors import InputError
from speechkit.files import atomic_folder, write_jsonl, write_text

BABBLE_SENTENCES = 4  # for each babbling voice


def plan_rows(
    name: str,
    texts: Sequence[str],
    variants: Sequence[str],
    rng: random.Random,
    language: str = "en-us",
    without: Iterable[str] = (),
) -> list[dict]:
    """Decides who says each sentence and how it sounds; all variants come up equally often.

    Args:
        name: of the set; a folder of the corpus.
        texts: what is said.
        variants: espeak-ng's names of the speakers.
        rng: fixes everything.
        language: espeak-ng's name of the voice.
        without: names of acoustic conditions that must not come up.

    Returns:
        A row an utterance: what `sentences.jsonl` holds. `path` is relative to the corpus.
    """
    rows, left = [], []
    for number, text in enumerate(texts):
        left = left or rng.sample(variants, len(variants))
        voice = draw_voice(left.pop(), rng, language)
        speaker = voice.variant.lower()
        utterance = f"{speaker}-{name}-{number:05d}"
        rows.append(
            {
                "utterance": utterance,
                "speaker": speaker,
                "text": text,
                "voice": vars(voice),
                "condition": draw_condition(rng, without),
                "path": f"{name}/audio/{utterance}.flac",
            }
        )
    return rows


def _speak(synthesizer: Synthesizer, text: str, voice: Voice) -> np.ndarray:
    """`(S,)` float32 at 16 kHz."""
    speech = synthesizer.speak(text, voice)
    return soxr.resample(speech.samples.astype(np.float32) / 32768, speech.rate, RATE)


def make_babble(texts: list[list[str]]) -> list[np.ndarray]:
    """Several voices at once, each saying its own sentences; one result for each list of texts."""
    synthesizer, results = Synthesizer(), []
    for own in texts:
        tracks = []
        for i, variant in enumerate(BABBLE):
            said = own[i * BABBLE_SENTENCES : (i + 1) * BABBLE_SENTENCES]
            tracks.append(
                np.concatenate([_speak(synthesizer, text, Voice(variant=variant)) for text in said])
            )
        length = min(map(len, tracks))
        results.append(sum(track[:length] for track in tracks))
    return results


def make_audio(rows: list[dict], folder: Path, babble: np.ndarray) -> list[int]:
    """Writes the FLAC files of some rows into a folder; returns their lengths in samples."""
    synthesizer, lengths = Synthesizer(), []
    for row in rows:
        speech = apply_condition(
            _speak(synthesizer, row["text"], Voice(**row["voice"])), row["condition"], babble
        )
        samples = np.rint(speech * 32767).astype(np.int16)
        soundfile.write(folder / Path(row["path"]).name, samples, RATE, format="FLAC", subtype="PCM_16")
        lengths.append(len(samples))
    return lengths


def speak_set(name: str, rows: list[dict], out: Path, babble: np.ndarray, jobs: int) -> float:
    """Writes `out`/<name>/{sentences.jsonl,text.txt,audio} as a whole; returns seconds of audio."""
    with atomic_folder(out / name) as folder:
        (folder / "audio").mkdir()
        speak = partial(make_audio, folder=folder / "audio", babble=babble)
        lengths = list(in_fresh_processes(speak, rows, jobs))
        rows = [row | {"samples": length} for row, length in zip(rows, lengths)]
        write_jsonl(folder / "sentences.jsonl", rows)
        write_text(folder / "text.txt", "".join(f"{row['utterance']} {row['text']}\n" for row in rows))
    return sum(lengths) / RATE


def read_rows(path: Path) -> list[dict]:
    """The rows of a set's sentences.jsonl; raises InputError when it is missing or broken."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make the corpus first (stage 0)") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not one JSON object a line: {error}; make the corpus again") from None


def as_data_dir(rows: list[dict], corpus: Path, with_text: bool) -> DataDir:
    """One set; `utt2cond` holds the acoustic condition."""
    data = DataDir()
    data.wav = {row["utterance"]: str(corpus / row["path"]) for row in rows}
    data.utt2spk = {row["utterance"]: row["speaker"] for row in rows}
    data.tables["utt2cond"] = {row["utterance"]: row["condition"]["name"] for row in rows}
    if with_text:
        data.text = {row["utterance"]: row["text"] for row in rows}
    return data
