"""Augmentation of waveforms: speed, room, noise, gain; every draw depends on the utterance's key alone.

So an utterance is augmented the same in any batch, by any worker, and again after a resume.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from speechkit.config import check_range
from speechkit.data.audio import read_audio, resample, resampled_length
from speechkit.errors import InputError

KEPT_RECORDINGS = 64
Count = TypeVar("Count", int, np.ndarray)


@dataclass
class Noise:
    """Background noise; lhotse mixes it in at a signal-to-noise ratio."""

    sources: list[str] = field(default_factory=list)
    """data directories (their wav.scp) or audio files"""
    probability: float = 0.0
    """share of utterances that get noise"""
    snr: list[float] = field(default_factory=lambda: [5.0, 20.0])
    """lowest and highest ratio, decibels"""

    def __post_init__(self) -> None:
        check_range("probability", self.probability, 0, 1)
        _check_span("snr", self.snr, -50, 100)
        if self.probability and not self.sources:
            raise ValueError(
                "sources: none given; name data directories or files of noise, or set probability=0"
            )


@dataclass
class Reverb:
    """Room responses: recorded ones, or synthetic ones when no sources are given."""

    sources: list[str] = field(default_factory=list)
    """data directories (their wav.scp) or audio files; empty for exponentially decaying noise"""
    probability: float = 0.0
    """share of utterances that are reverberated"""
    t60: list[float] = field(default_factory=lambda: [0.1, 0.6])
    """synthetic: shortest and longest time of decay by 60 dB, seconds"""
    direct: list[float] = field(default_factory=lambda: [0.0, 12.0])
    """synthetic: lowest and highest direct-to-reverberant energy ratio, decibels"""

    def __post_init__(self) -> None:
        check_range("probability", self.probability, 0, 1)
        _check_span("t60", self.t60, 0.01, 5)
        _check_span("direct", self.direct, -50, 100)


@dataclass
class Gain:
    """A random factor on the waveform."""

    probability: float = 0.0
    """share of utterances"""
    decibels: list[float] = field(default_factory=lambda: [-10.0, 6.0])
    """lowest and highest gain"""

    def __post_init__(self) -> None:
        check_range("probability", self.probability, 0, 1)
        _check_span("decibels", self.decibels, -100, 40)


@dataclass
class Config:
    """No augmentation unless asked for."""

    speeds: list[float] = field(default_factory=lambda: [1.0])
    """factors that the batch plan draws from, three decimals at most; Kaldi uses 0.9, 1, 1.1"""
    noise: Noise = field(default_factory=Noise)
    """background noise mixed in at a signal-to-noise ratio"""
    reverb: Reverb = field(default_factory=Reverb)
    """convolution with room impulse responses"""
    gain: Gain = field(default_factory=Gain)
    """change of volume"""

    def __post_init__(self) -> None:
        if not self.speeds:
            raise ValueError("speeds: empty; [1.0] is no speed perturbation")
        for speed in self.speeds:
            check_range("speeds", speed, 0.3, 3)
            if abs(speed * 1000 - round(speed * 1000)) > 1e-6:
                raise ValueError(f"speeds: {speed} has more than three decimals")


def _check_span(name: str, span: list[float], low: float, high: float) -> None:
    if len(span) != 2 or span[0] > span[1]:
        raise ValueError(f"{name}={span} must be [lowest, highest]")
    check_range(name, span[0], low, high)
    check_range(name, span[1], low, high)


def speed_samples(samples: Count, speed: float | np.ndarray) -> Count:
    """How many samples `change_speed` makes of so many: samples / speed, halves rounded up.

    Args:
        samples: count, or int64 array of counts.
        speed: factor with three decimals at most, or an array of them.
    """
    old = np.rint(np.asarray(speed) * 1000).astype(np.int64)
    counts = resampled_length(np.asarray(samples, dtype=np.int64), old, 1000)
    return counts if isinstance(samples, np.ndarray) else int(counts)


def change_speed(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Plays a waveform `(S,)` faster (speed > 1) by resampling: tempo and pitch change, as by sox `speed`."""
    return resample(waveform, round(speed * 1000), 1000)


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr: float, rate: int) -> np.ndarray:
    """Mixes noise `(S,)` into speech `(S,)` by lhotse at a ratio of mean powers in decibels."""
    from lhotse.audio.mixer import AudioMixer

    mixer = AudioMixer(waveform[None], rate)
    mixer.add_to_mix(noise[None], snr=snr)
    return mixer.mixed_audio[0]


def add_room(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolves with a room response; the result has the same length, power and onset.

    The direct path (the response's largest sample) moves to time 0, as with Kaldi's
    `wav-reverberate --shift-output`.
    """
    from scipy.signal import fftconvolve

    start = int(np.abs(response).argmax())
    wet = fftconvolve(waveform, response)[start : start + len(waveform)].astype(np.float32)
    power, wet_power = float(np.mean(np.square(waveform))), float(np.mean(np.square(wet)))
    return wet * np.float32(np.sqrt(power / wet_power)) if wet_power > 0 else wet


def synthetic_room(random: np.random.Generator, t60: float, direct: float, rate: int) -> np.ndarray:
    """A room response: a unit impulse, then white noise under an exponential decay.

    Source: J.-D. Polack, "La transmission de l'energie sonore dans les salles", 1988: late reverberation
    as Gaussian noise times exp(-3 ln(10) t / T60).

    Args:
        random: draws the noise.
        t60: seconds in which the tail falls by 60 dB; also the response's length.
        direct: energy of the impulse over that of the tail, decibels.
        rate: Hz.

    Returns:
        `(round(t60 * rate),)` float32.
    """
    time = np.arange(1, max(round(t60 * rate), 2)) / rate
    tail = random.standard_normal(len(time)) * np.exp(-3 * np.log(10) * time / t60)
    tail *= np.sqrt(10 ** (-direct / 10) / np.sum(tail**2))
    return np.concatenate([[1.0], tail]).astype(np.float32)


class _Sounds:
    """Noises or room responses, decoded when first used; the latest ones are kept."""

    def __init__(self, sources: list[str], rate: int) -> None:
        self.rate = rate
        self.entries = [entry for source in sources for entry in _entries(source)]
        self.kept: OrderedDict[str, np.ndarray] = OrderedDict()

    def draw(self, random: np.random.Generator) -> np.ndarray:
        entry = self.entries[int(random.integers(len(self.entries)))]
        sound = self.kept.pop(entry, None)
        if sound is None:
            sound = read_audio(entry, channel=0, rate=self.rate)
        self.kept[entry] = sound
        if len(self.kept) > KEPT_RECORDINGS:
            self.kept.popitem(last=False)
        return sound


def _entries(source: str) -> list[str]:
    path = Path(source)
    if path.is_dir():
        from speechkit.data.tables import parse_table

        table = path / "wav.scp"
        if not table.exists():
            raise InputError(f"{table}: no such file; a folder of noise or rooms needs a wav.scp")
        parsed = parse_table(table.read_bytes(), str(table), "wav.scp")
        if parsed.problems or not parsed.rows:
            raise InputError(str(parsed.problems[0]) if parsed.problems else f"{table}: empty")
        return [parsed.rows[key] for key in sorted(parsed.rows)]
    if not path.is_file():
        raise InputError(f"augmentation source {source}: neither a data directory nor an audio file")
    return [source]


class Augment:
    """Augments single utterances.

    Args:
        config: what to do.
        rate: Hz of the waveforms.

    Raises:
        InputError: a source of noise or rooms is not there.
    """

    def __init__(self, config: Config, rate: int = 16000) -> None:
        self.config, self.rate = config, rate
        self.noises = _Sounds(config.noise.sources, rate)
        self.rooms = _Sounds(config.reverb.sources, rate)

    def __call__(self, waveform: np.ndarray, key: int, speed: float = 1.0) -> np.ndarray:
        """Changes speed, then adds a room, noise and gain as drawn from the key.

        Args:
            waveform: `(S,)` float32.
            key: the utterance's 64-bit key (a hash of seed, epoch and utterance).
            speed: the factor drawn by the batch plan.

        Returns:
            `(speed_samples(S, speed),)` float32; values beyond 1 are not clipped.

        Raises:
            BadSample: a noise or room response cannot be decoded.
        """
        waveform = change_speed(waveform, speed)
        random = np.random.default_rng(int(key) & 0xFFFFFFFFFFFFFFFF)
        reverb, noise, gain = self.config.reverb, self.config.noise, self.config.gain
        if random.random() < reverb.probability:
            waveform = add_room(waveform, self._room(random))
        if random.random() < noise.probability:
            piece = _excerpt(self.noises.draw(random), len(waveform), random)
            waveform = add_noise(waveform, piece, random.uniform(*noise.snr), self.rate)
        if random.random() < gain.probability:
            waveform = waveform * np.float32(10 ** (random.uniform(*gain.decibels) / 20))
        return np.ascontiguousarray(waveform, dtype=np.float32)

    def _room(self, random: np.random.Generator) -> np.ndarray:
        if self.rooms.entries:
            return self.rooms.draw(random)
        reverb = self.config.reverb
        return synthetic_room(random, random.uniform(*reverb.t60), random.uniform(*reverb.direct), self.rate)


def _excerpt(sound: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """So many samples from a random place; a shorter sound is repeated."""
    start = int(random.integers(len(sound)))
    if start + samples <= len(sound):
        return sound[start : start + samples]
    return sound[(start + np.arange(samples)) % len(sound)]
