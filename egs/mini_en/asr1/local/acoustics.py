"""What happens to clean speech on its way: noise, a room, a telephone line."""

from __future__ import annotations

import io
import random
import subprocess
from collections.abc import Iterable

import numpy as np
import soundfile
import soxr

from speechkit.errors import InputError

RATE = 16000
SHARES = {"clean": 0.55, "noise": 0.25, "room": 0.10, "telephone": 0.10}
NOISES = ("white", "pink", "babble")
SNR_DB = 10.0, 25.0
LEVEL_DB = -27.0, -20.0  # RMS of the speech below full scale


def draw_condition(rng: random.Random, without: Iterable[str] = ()) -> dict:
    """One condition: its name, and its parameters, as plain values.

    Args:
        rng: draws until the name is none of `without`.
        without: names of SHARES that must not come up.
    """
    level = round(rng.uniform(*LEVEL_DB), 1)
    (name,) = rng.choices(list(SHARES), list(SHARES.values()))
    condition = {"name": name, "level_db": level}
    if name == "noise":
        condition |= {
            "noise": rng.choice(NOISES),
            "snr_db": round(rng.uniform(*SNR_DB), 1),
            "seed": rng.getrandbits(32),
        }
    if name == "room":
        condition |= {"reverberance": rng.randint(30, 70), "room_scale": rng.randint(20, 100)}
    return draw_condition(rng, without) if name in without else condition


def apply_condition(speech: np.ndarray, condition: dict, babble: np.ndarray) -> np.ndarray:
    """Sets the level and applies the condition.

    Args:
        speech: `(S,)` float32 at 16 kHz.
        condition: from `draw_condition`.
        babble: `(N,)` float32 voices in the background, N >= 1 second.

    Returns:
        `(S,)` float32 within [-1, 1].

    Raises:
        InputError: when the sox program is missing or fails.
    """
    speech = speech * _gain(speech, 10 ** (condition["level_db"] / 20))
    if condition["name"] == "noise":
        speech = speech + _noise(len(speech), condition, babble) * (
            _rms(speech) / 10 ** (condition["snr_db"] / 20)
        )
    elif condition["name"] == "room":
        effect = ["reverb", str(condition["reverberance"]), "50", str(condition["room_scale"])]
        wet = np.frombuffer(_sox(speech, [*_FLOAT, "-r", str(RATE)], effect), np.float32)
        speech = wet[: len(speech)]
    elif condition["name"] == "telephone":
        line = _sox(
            speech, ["-t", "raw", "-e", "mu-law", "-b", "8", "-c", "1", "-r", "8000"], ["sinc", "300-3400"]
        )
        narrow, _ = soundfile.read(
            io.BytesIO(line), format="RAW", subtype="ULAW", samplerate=8000, channels=1, dtype="float32"
        )
        wide = soxr.resample(narrow, 8000, RATE)
        speech = np.pad(wide[: len(speech)], (0, max(0, len(speech) - len(wide))))
    peak = np.abs(speech).max()
    return (speech / peak * 0.99 if peak > 0.99 else speech).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _gain(samples: np.ndarray, rms: float) -> np.float32:
    return np.float32(rms / max(_rms(samples), 1e-9))


def _noise(length: int, condition: dict, babble: np.ndarray) -> np.ndarray:
    """`(length,)` noise of RMS 1."""
    rng = np.random.Generator(np.random.PCG64(condition["seed"]))
    if condition["noise"] == "babble":
        start = int(rng.integers(len(babble)))
        noise = np.take(babble, np.arange(start, start + length), mode="wrap")
    else:
        noise = rng.standard_normal(1 << (length - 1).bit_length())  # a power of two: prime lengths are slow
        if condition["noise"] == "pink":  # power falls as 1/f; below 30 Hz it stays flat
            spectrum = np.fft.rfft(noise)
            hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
            noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, 30.0)))
        noise = noise[:length].astype(np.float32)
    return noise * _gain(noise, 1.0)


_FLOAT = ["-t", "raw", "-e", "floating-point", "-b", "32", "-c", "1"]


def _sox(speech: np.ndarray, output: list[str], effect: list[str]) -> bytes:
    # -D: no dither, which would hide the corpus's own conditions; -R: the same bytes every time.
    command = ["sox", "-D", "-R", "-V1", *_FLOAT, "-r", str(RATE), "-", *output, "-", *effect]
    try:
        done = subprocess.run(
            command, input=speech.astype(np.float32).tobytes(), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise InputError("sox is not installed; install it with: apt-get install sox") from None
    if done.returncode != 0 or not done.stdout:
        raise InputError(f"sox failed ({' '.join(effect)}): {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
