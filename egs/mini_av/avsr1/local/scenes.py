"""Scenes of five kinds, each seen and heard: what moves in the pictures makes the sound, at the same moment.

A scene is a handful of numbers that its seed draws. Its pictures and its sound are functions of time that
share them: how hard it rains, when the ball bounces, where the car is, how fast the fan turns, how the crowd
waves.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATE = 16000
FPS = 12
SIZE = 64  # pixels, height and width

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """What tells one scene of a kind from the others.

    Attributes:
        kind: of KINDS.
        seed: of all that follows, and of noise in pictures and sound.
        front: colour of what moves, in [0, 1].
        back: colour of what is behind it.
        pace: seconds in which things come back.
        phase: where in that time it begins, in [0, 1).
        pitch: Hz, of what sounds.
        place: where in the picture, in [0, 1].
        width: how large it is, as a share of the picture.
    """

    kind: str
    seed: int
    front: Colour
    back: Colour
    pace: float
    phase: float
    pitch: float
    place: float
    width: float


def draw_scene(kind: str, seed: int) -> Scene:
    """The scene of a seed."""
    rng = random.Random(f"scene {kind} {seed}")

    def colour(low: float, high: float) -> Colour:
        return tuple(round(rng.uniform(low, high), 3) for _ in range(3))

    return Scene(
        kind,
        seed,
        front=colour(0.55, 1.0),
        back=colour(0.0, 0.35),
        pace=round(rng.uniform(2.0, 4.0), 3),
        phase=round(rng.random(), 3),
        pitch=round(rng.uniform(70, 200), 1),
        place=round(rng.uniform(0.35, 0.65), 3),
        width=round(rng.uniform(0.12, 0.2), 3),
    )


def swell(scene: Scene, time: np.ndarray) -> np.ndarray:
    """How much goes on at these seconds, in (0, 1): mostly little or much."""
    turns = time / scene.pace + scene.phase
    return 1 / (1 + np.exp(-5 * (np.sin(2 * np.pi * turns) + 0.5 * np.sin(2 * np.pi * 2.7 * turns + 1))))


def film(scene: Scene, seconds: float, start: float = 0.0) -> np.ndarray:
    """The pictures.

    Args:
        scene: which.
        seconds: how long.
        start: seconds of the scene that have gone by.

    Returns:
        `(N, H, W, 3)` uint8, FPS a second.
    """
    time = start + np.arange(round(seconds * FPS)) / FPS
    axis = (np.arange(SIZE) + 0.5) / SIZE
    there = np.clip(
        _FILMS[scene.kind](scene, time[:, None, None], axis[None, None, :], axis[None, :, None]), 0, 1
    )
    front, back = np.array(scene.front), np.array(scene.back)
    pictures = back + there[..., None] * (front - back)
    noise = _noise(scene, 1).normal(0, 0.004, pictures.shape)
    return np.rint(np.clip(pictures + noise, 0, 1) * 255).astype(np.uint8)


def sound(scene: Scene, samples: int, voices: np.ndarray, start: float = 0.0) -> np.ndarray:
    """The sound.

    Args:
        scene: which.
        samples: how many at 16 kHz.
        voices: `(V,)` several voices at once, which a crowd is heard as.
        start: seconds of the scene that have gone by.

    Returns:
        `(samples,)` float32 of RMS 1.
    """
    time = start + np.arange(samples) / RATE
    heard = _SOUNDS[scene.kind](scene, time, voices) + 0.003 * _noise(scene, 2).normal(size=samples)
    return (heard / max(1e-9, np.sqrt(np.mean(np.square(heard))))).astype(np.float32)


def _noise(scene: Scene, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([scene.seed, stream]))


def _soft(distance: np.ndarray) -> np.ndarray:
    """1 inside, 0 outside, with an edge of about a pixel."""
    return 1 / (1 + np.exp(np.clip(distance * 120, -40, 40)))


# ---- rain: streaks that fall, as many as it is loud -------------------------------------------------------

_STREAKS = 28


def _see_rain(scene: Scene, time: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rng = _noise(scene, 3)
    columns, starts, speeds = rng.random(_STREAKS), rng.random(_STREAKS), rng.uniform(1.2, 1.8, _STREAKS)
    there = np.zeros(np.broadcast_shapes(time.shape, x.shape, y.shape))
    for number in range(_STREAKS):
        falls = (speeds[number] * time + starts[number] - y) % 1.0 < 0.22
        shown = swell(scene, time) > (number + 0.5) / _STREAKS
        there += _soft(np.abs(x - columns[number]) - 0.012) * (falls & shown)
    return there


def _hear_rain(scene: Scene, time: np.ndarray, voices: np.ndarray) -> np.ndarray:
    length = 1 << (len(time) - 1).bit_length()  # a power of two: prime lengths are slow
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    band = np.exp(-0.5 * (np.log2(np.maximum(hertz, 1) / (15 * scene.pitch)) / 0.8) ** 2)
    hiss = np.fft.irfft(np.fft.rfft(_noise(scene, 4).normal(size=length)) * band)[: len(time)]
    return hiss * (0.03 + swell(scene, time))


# ---- a ball: a thud when it is at the bottom --------------------------------------------------------------


def _bounce(scene: Scene, time: np.ndarray) -> tuple[np.ndarray, float]:
    """The part of the time between two bounces that has gone by, in [0, 1), and that time in seconds."""
    period = scene.pace / 3
    return (time / period + scene.phase) % 1.0, period


def _see_ball(scene: Scene, time: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    gone, _ = _bounce(scene, time)
    height = 1 - scene.width - 2.4 * gone * (1 - gone)
    return _soft(np.hypot(x - scene.place, y - height) - scene.width)


def _hear_ball(scene: Scene, time: np.ndarray, voices: np.ndarray) -> np.ndarray:
    gone, period = _bounce(scene, time)
    since = gone * period
    tone = np.sin(2 * np.pi * scene.pitch * since) * np.exp(-since / 0.12)
    return tone + 0.4 * _noise(scene, 4).normal(size=len(time)) * np.exp(-since / 0.04)


# ---- a car: a hum that comes and goes and falls in pitch --------------------------------------------------


def _drive(scene: Scene, time: np.ndarray) -> np.ndarray:
    """Where the car is: in the picture between 0 and 1."""
    return 1.6 * ((time / scene.pace + scene.phase) % 1.0) - 0.3


def _see_car(scene: Scene, time: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    long, high = np.abs(x - _drive(scene, time)) - scene.width, np.abs(y - scene.place) - scene.width / 2
    return _soft(np.maximum(long, high))


def _hear_car(scene: Scene, time: np.ndarray, voices: np.ndarray) -> np.ndarray:
    place = _drive(scene, time)
    hertz = scene.pitch * (1 + 0.15 * np.tanh(6 * (0.5 - place)))
    turns = 2 * np.pi * np.cumsum(hertz) / RATE
    engine = sum(np.sin(number * turns) / number**0.7 for number in range(1, 13))
    tyres = 0.3 * _noise(scene, 4).normal(size=len(time))
    return (engine + tyres) / (1 + ((place - 0.5) / 0.15) ** 2)


# ---- a fan: three blades, as bright as they are fast ------------------------------------------------------


def _see_fan(scene: Scene, time: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    turned = 2 * np.pi * np.cumsum(swell(scene, time), axis=0) / FPS
    blades = np.cos(3 * (np.arctan2(y - 0.5, x - scene.place) - turned)) > 0
    disc = _soft(np.hypot(x - scene.place, y - 0.5) - 2 * scene.width)
    return disc * blades * (0.25 + 0.75 * swell(scene, time))


def _hear_fan(scene: Scene, time: np.ndarray, voices: np.ndarray) -> np.ndarray:
    power = swell(scene, time)
    turns = 2 * np.pi * np.cumsum(scene.pitch * (0.6 + power)) / RATE
    hum = sum(np.sin(number * turns) for number in (1, 2, 3, 5))
    beat = 1 + 0.5 * np.sin(turns / 8)
    return beat * power * (hum + 0.6 * _noise(scene, 4).normal(size=len(time)))


# ---- a crowd: dots that wave the more, the louder they talk -----------------------------------------------


def _see_crowd(scene: Scene, time: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rng, there = _noise(scene, 3), np.zeros(np.broadcast_shapes(time.shape, x.shape, y.shape))
    power = swell(scene, time)
    for number in range(9):
        across, down = (number % 3 + 0.5) / 3, (number // 3 + 0.5) / 3
        wave = 0.1 * power * np.sin(2 * np.pi * (1.5 * time + rng.random()))
        there += _soft(np.hypot(x - across, y - down - wave) - 0.04 - 0.05 * power)
    return there


def _hear_crowd(scene: Scene, time: np.ndarray, voices: np.ndarray) -> np.ndarray:
    first = int(_noise(scene, 4).integers(len(voices)))
    talk = np.take(voices, np.arange(first, first + len(time)), mode="wrap")
    return talk / max(1e-9, np.sqrt(np.mean(np.square(voices)))) * (0.03 + swell(scene, time))


_FILMS: dict[str, Callable] = {
    "rain": _see_rain,
    "ball": _see_ball,
    "car": _see_car,
    "fan": _see_fan,
    "crowd": _see_crowd,
}
_SOUNDS: dict[str, Callable] = {
    "rain": _hear_rain,
    "ball": _hear_ball,
    "car": _hear_car,
    "fan": _hear_fan,
    "crowd": _hear_crowd,
}
KINDS = tuple(_FILMS)
