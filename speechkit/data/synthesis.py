"""Speech synthesis with the espeak-ng library, in process: samples, phones and word timing.

A synthesiser gives recipes speech in many languages without a download. The library keeps state from
one utterance to the next (phases, flutter), so the samples of an utterance depend on what the process
said before. `in_fresh_processes` therefore works through fixed blocks, each in a process of its own:
the same requests give the same bytes for any number of jobs.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import multiprocessing
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from speechkit.errors import InputError

Request, Result = TypeVar("Request"), TypeVar("Result")

HOW_TO_INSTALL = "install it with: apt-get install espeak-ng"
BLOCK = 50  # requests a process; part of what fixes the bytes, so no option

# From espeak-ng's speak_lib.h (1.51).
_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 2, 1, 2, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_UTF8, _IPA, _SEPARATOR_SHIFT = 1, 2, 8
_BUFFER_MS = 1000  # audio a callback
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """One way to speak.

    Args:
        name: an espeak-ng voice or language such as "en-us" or "fr" (`espeak-ng --voices`).
        variant: a speaker variant such as "m3" (`espeak-ng --voices=variant`), or "".
        rate: words a minute, 80-450.
        pitch: 0-99, 50 is the variant's own.
        pitch_range: 0-99, 50 is the variant's own; 0 is monotone.
        volume: 0-200, 100 is full scale without clipping.
    """

    name: str = "en-us"
    variant: str = ""
    rate: int = 145
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 100

    @property
    def full_name(self) -> str:
        """The name the library knows, such as "en-us+m3"."""
        return f"{self.name}+{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class Mark:
    """A word or phone in the audio: its label and its start and end in seconds."""

    label: str
    start: float
    end: float


@dataclass
class Speech:
    """What one call of the library gave.

    Args:
        samples: int16 `(S,)`.
        rate: samples a second (the library's own, 22050).
        words: one mark a word, labelled with its letters in the text.
        phones: one mark a phone, labelled in IPA.
    """

    samples: np.ndarray
    rate: int
    words: list[Mark] = field(default_factory=list)
    phones: list[Mark] = field(default_factory=list)


class _Library:
    """The one espeak-ng of this process: initialised once, never terminated, not thread-safe."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self.c = ctypes.CDLL(name)
        except OSError:
            raise InputError(f"espeak-ng's library ({name}) cannot be loaded; {HOW_TO_INSTALL}") from None
        self.c.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.c.espeak_Info.restype = ctypes.c_char_p
        self.c.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
            ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        self.rate = self.c.espeak_Initialize(
            _SYNCHRONOUS, _BUFFER_MS, None, _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
        )
        if self.rate <= 0:
            raise InputError(f"espeak-ng finds no voice data; {HOW_TO_INSTALL} espeak-ng-data")
        data = ctypes.c_char_p()
        self.version = self.c.espeak_Info(ctypes.byref(data)).decode()
        self.variants = Path(data.value.decode()) / "voices" / "!v"
        self.spoke = False
        self.audio: list[bytes] = []
        self.events: list[tuple[int, int, int, int, str]] = []
        self._callback = _Callback(self._collect)  # kept: ctypes does not hold a reference
        self.c.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: int | None, count: int, events: Any) -> int:
        if samples and count > 0:
            self.audio.append(ctypes.string_at(samples, 2 * count))
        i = 0
        while events[i].type != _EVENT_END:
            event = events[i]
            name = event.id.string.decode("utf-8", "replace") if event.type == _EVENT_PHONEME else ""
            self.events.append((event.type, event.audio_position, event.text_position, event.length, name))
            i += 1
        return 0

    def set_voice(self, voice: Voice) -> None:
        # The library takes an unknown variant in silence and speaks with the plain voice.
        plain = voice.variant.replace("_", "").replace("-", "").isalnum()
        if voice.variant and not (plain and (self.variants / voice.variant).is_file()):
            raise InputError(
                f"espeak-ng has no voice variant '{voice.variant}' (see espeak-ng --voices=variant); "
                f"the data lie in {self.variants.parent.parent}; {HOW_TO_INSTALL}"
            )
        if self.c.espeak_SetVoiceByName(voice.full_name.encode()) != 0:
            raise InputError(
                f"espeak-ng has no voice '{voice.name}' (see espeak-ng --voices); "
                f"newer voices may need a newer espeak-ng: {HOW_TO_INSTALL}"
            )
        parameters = {
            _RATE: voice.rate,
            _PITCH: voice.pitch,
            _RANGE: voice.pitch_range,
            _VOLUME: voice.volume,
        }
        for parameter, value in parameters.items():
            if self.c.espeak_SetParameter(parameter, int(value), 0) != 0:
                raise InputError(f"espeak-ng refuses the settings of {voice}")


@lru_cache(maxsize=1)
def _library() -> _Library:
    return _Library()


class Synthesizer:
    """Speaks text and tells its phones.

    All synthesisers of a process share the one library, which is not thread-safe: for several cores
    use processes (`in_fresh_processes`).

    Raises:
        InputError: when espeak-ng or its data are missing; says how to install them.
    """

    def __init__(self) -> None:
        self._library = _library()
        self.rate: int = self._library.rate
        self.version: str = self._library.version

    def variants(self) -> list[str]:
        """The names of all speaker variants, sorted."""
        return sorted(path.name for path in self._library.variants.iterdir() if path.is_file())

    def speak(self, text: str, voice: Voice | None = None) -> Speech:
        """Synthesises one text.

        Args:
            text: any text in the voice's language.
            voice: how to speak; None is American English.

        Raises:
            InputError: unknown voice or variant, settings out of range, or no sound for the text.
        """
        library, voice = self._library, voice or Voice()
        library.set_voice(voice)
        library.spoke = True
        library.audio.clear()
        library.events.clear()
        data = text.encode("utf-8")
        status = library.c.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(library.audio), np.int16)
        if status != 0 or not samples.any():
            raise InputError(f"espeak-ng makes no sound of '{text}' with voice '{voice.full_name}'")
        end = len(samples) / self.rate
        words = [
            (at / 1000, text[position - 1 : position - 1 + length])
            for kind, at, position, length, _ in library.events
            if kind == _EVENT_WORD
        ]
        phones = [(at / 1000, name) for kind, at, _, _, name in library.events if kind == _EVENT_PHONEME]
        return Speech(samples, self.rate, _marks(words, end), _marks(phones, end))

    def phones(self, text: str, voice: Voice | None = None) -> list[list[str]]:
        """The IPA phones of a text, a list for each group that is spoken as one word.

        Stress marks stay on their phones (`without_stress` removes them). Groups are espeak-ng's: "of the"
        may come as one.
        """
        library = self._library
        library.set_voice(voice or Voice())
        buffer = ctypes.create_string_buffer(text.encode("utf-8"))
        position = ctypes.c_void_p(ctypes.addressof(buffer))
        mode, clauses = _IPA | ord("_") << _SEPARATOR_SHIFT, []
        while position.value:  # a call converts one clause and moves the position
            clause = library.c.espeak_TextToPhonemes(ctypes.byref(position), _UTF8, mode)
            clauses.append((clause or b"").decode("utf-8"))
        return [[phone for phone in group.split("_") if phone] for group in " ".join(clauses).split()]


def without_stress(phone: str) -> str:
    """A phone without primary and secondary stress marks, in Unicode's composed form."""
    return unicodedata.normalize("NFC", phone.translate({0x2C8: None, 0x2CC: None}))


def _marks(starts: list[tuple[float, str]], end: float) -> list[Mark]:
    """Each mark lasts until the next one starts; empty labels are pauses and are left out."""
    ends = [start for start, _ in starts[1:]] + [end]
    return [Mark(label, start, stop) for (start, label), stop in zip(starts, ends) if label.strip("_: ")]


def in_fresh_processes(
    work: Callable[[list[Request]], list[Result]], requests: Sequence[Request], jobs: int, block: int = BLOCK
) -> Iterator[Result]:
    """Maps `work` over fixed blocks of the requests, each block in a process that never spoke before.

    Args:
        work: takes one block and returns a result for each request; a function of a module.
        requests: all requests; the blocks are consecutive, so they do not depend on `jobs`.
        jobs: processes at a time.
        block: requests a process.

    Yields:
        The results in the order of the requests.
    """
    blocks = [list(requests[i : i + block]) for i in range(0, len(requests), block)]
    # A missing library is told once, here. Forked children inherit it initialised, in milliseconds, but
    # with the state it has: once this process spoke they must start from nothing.
    start = "spawn" if _library().spoke else "fork"
    with multiprocessing.get_context(start).Pool(max(1, jobs), maxtasksperchild=1) as pool:
        for results in pool.imap(work, blocks, chunksize=1):
            yield from results
