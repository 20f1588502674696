"""Small data made on the spot: predictable ids, sound that differs by seed, nothing from the package.

The files are written with plain Python and soundfile, so that a test of a reader does not trust our writer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero")


def waveform(seconds: float = 1.0, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """A speech-like sound: a gliding harmonic tone in bursts, and a little noise.

    Args:
        seconds: duration; `round(seconds * rate)` samples are made.
        rate: samples a second.
        seed: chooses pitch, burst rate and noise; two seeds never give the same sound.

    Returns:
        `(S,)` float32 with a peak of about 0.5.
    """
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (random.uniform(90, 250) * time + random.uniform(-20, 20) * time**2)
    bursts = 0.55 + 0.45 * np.sin(2 * np.pi * random.uniform(2, 5) * time + random.uniform(0, 6))
    tone = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (0.2 * bursts * tone + 0.01 * random.standard_normal(len(time))).clip(-0.9, 0.9).astype(np.float32)


def make_wave(
    path: str | Path, seconds: float = 1.0, rate: int = 16000, seed: int = 0, channels: int = 1
) -> Path:
    """Writes 16-bit audio; the suffix chooses the format (`.wav`, `.flac`, `.ogg` ...).

    Args:
        path: the file; its folder is made.
        seconds: duration.
        rate: samples a second.
        seed: see `waveform`; channel c uses seed + 1000 c.
        channels: 1, or more for a file whose channels all differ.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [waveform(seconds, rate, seed + 1000 * channel) for channel in range(channels)]
    soundfile.write(path, np.stack(columns, axis=1) if channels > 1 else columns[0], rate)
    return path


def write_table(path: str | Path, rows: Mapping[str, str]) -> Path:
    """Writes `key value` lines sorted by code point; an empty value leaves the key alone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} {value}".rstrip(" ") + "\n" for key, value in sorted(rows.items())]
    path.write_bytes("".join(lines).encode())
    return path


def make_data_dir(
    path: str | Path,
    utterances: int = 6,
    speakers: int = 2,
    seconds: float | Sequence[float] = 1.0,
    rate: int = 16000,
    seed: int = 0,
    texts: Sequence[str] | None = None,
    prefix: str = "",
    segments: bool = False,
    audio: bool = True,
    suffix: str = ".wav",
) -> Path:
    """Writes a valid Kaldi data directory with sound in `<path>/audio`.

    Speaker s has the id `<prefix>s0s`, its n-th utterance `<prefix>s0s-00n`; utterances go to the speakers
    in turn. With `segments`, a speaker is one recording and its utterances follow each other without gaps.

    Args:
        path: the directory to make.
        utterances: how many.
        speakers: how many.
        seconds: duration of every utterance, or one for each.
        rate: samples a second.
        seed: sound and default texts depend on it.
        texts: one transcript for each utterance; by default random digits, 1 + 2 per second.
        prefix: put before every id, to make disjoint sets.
        segments: write long recordings and a `segments` file.
        audio: False writes the tables only; `wav.scp` then names files that do not exist.
        suffix: the audio format.

    Returns:
        The path.
    """
    path = Path(path)
    random = np.random.default_rng(seed)
    durations = [seconds] * utterances if isinstance(seconds, (int, float)) else list(seconds)
    utt2spk, lengths, text = {}, {}, {}
    for index in range(utterances):
        speaker = f"{prefix}s{index % speakers:02d}"
        utterance = f"{speaker}-{index // speakers:03d}"
        utt2spk[utterance], lengths[utterance] = speaker, durations[index]
        words = random.choice(WORDS, 1 + int(2 * durations[index]))
        text[utterance] = texts[index] if texts is not None else " ".join(words)

    spoken: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        spoken.setdefault(utt2spk[utterance], []).append(utterance)
    recordings = spoken if segments else {utterance: [utterance] for utterance in sorted(utt2spk)}
    wav, rows = {}, {}
    for index, (recording, members) in enumerate(recordings.items()):
        wav[recording] = str(path / "audio" / f"{recording}{suffix}")
        start = 0.0
        for utterance in members:
            rows[utterance] = f"{recording} {start:.3f} {start + lengths[utterance]:.3f}"
            start += lengths[utterance]
        if audio:
            make_wave(wav[recording], start, rate, seed=seed * 10007 + index)

    write_table(path / "wav.scp", wav)
    write_table(path / "text", text)
    write_table(path / "utt2spk", utt2spk)
    write_table(path / "spk2utt", {speaker: " ".join(members) for speaker, members in spoken.items()})
    if segments:
        write_table(path / "segments", rows)
    return path
