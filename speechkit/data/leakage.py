"""Leakage: what a test set shares with the material a system was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from speechkit.data.fingerprint import FingerprintIndex, fingerprint, sample_hash
from speechkit.data.kaldi_dir import DataDir
from speechkit.data.parallel import run_parallel
from speechkit.errors import InputError
from speechkit.text.normalise import Config, Normaliser

# What each kind of finding means, in the order of the report.
KINDS = {
    "speaker": "speakers in both",
    "sentence": "test sentences word for word in the other set",
    "normalised sentence": "test sentences in the other set, but for case, punctuation and Unicode form",
    "sentence in text": "test sentences in the language model's text",
    "audio": "recordings with the same samples",
    "similar audio": "recordings that are the same sound but for gain, codec or trimming",
}


@dataclass(frozen=True)
class Leak:
    """One finding: `test` is the test utterance or speaker, `other` the same in `where`."""

    kind: str
    test: str
    where: str
    other: str
    detail: str = ""


def plain_form(text: str) -> str:
    """A text without case, punctuation and compatibility forms, for comparing sentences."""
    return _PLAIN(text)


_PLAIN = Normaliser(Config(form="NFKC", case="lower", punctuation="remove", exceptions=""))


def shared_speakers(test: DataDir, other: DataDir) -> Iterator[Leak]:
    """Speaker ids that both sets have."""
    for speaker in sorted(set(test.speakers) & set(other.speakers)):
        yield Leak("speaker", speaker, str(other.path), speaker)


def shared_sentences(test: DataDir, other: DataDir, min_words: int = 3) -> Iterator[Leak]:
    """Test utterances whose transcript another set has too, exactly or in its plain form.

    Args:
        test: the test set.
        other: the set it is compared with.
        min_words: shorter sentences do not count: "yes" is no leak.
    """
    exact: dict[str, str] = {}
    plain: dict[str, str] = {}
    for utterance in sorted(other.text):
        exact.setdefault(other.text[utterance], utterance)
        plain.setdefault(plain_form(other.text[utterance]), utterance)
    for utterance in sorted(test.text):
        text = test.text[utterance]
        form = plain_form(text)
        if len(form.split()) < min_words:
            continue
        if text in exact:
            yield Leak("sentence", utterance, str(other.path), exact[text], text)
        elif form in plain:
            yield Leak("normalised sentence", utterance, str(other.path), plain[form], text)


def sentences_in_text(tests: Sequence[DataDir], file: str | Path, min_words: int = 3) -> Iterator[Leak]:
    """Test sentences that a text has as a line or, from five words on, within a line.

    Args:
        tests: the test sets.
        file: one sentence a line.
        min_words: shorter sentences do not count.

    Raises:
        InputError: the file is missing or not UTF-8; it names `file:line`.
    """
    within = max(5, min_words)
    lines_of: dict[str, list[str]] = {}
    starting: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for test in tests:
        for utterance in sorted(test.text):
            words = tuple(plain_form(test.text[utterance]).split())
            if len(words) >= min_words:
                lines_of.setdefault(" ".join(words), []).append(utterance)
                if len(words) >= within:
                    starting.setdefault(words[:within], []).append(words)
    try:
        with open(file, "rb") as opened:
            for number, raw in enumerate(opened, 1):
                words = tuple(plain_form(raw.decode()).split())
                found = {" ".join(words)} & lines_of.keys()
                for start in range(len(words) - within + 1):
                    for sentence in starting.get(words[start : start + within], ()):
                        if words[start : start + len(sentence)] == sentence:
                            found.add(" ".join(sentence))
                for sentence in sorted(found):
                    for utterance in lines_of.pop(sentence, ()):
                        yield Leak("sentence in text", utterance, str(file), f"line {number}", sentence)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}:{number}: not UTF-8") from None


@dataclass(frozen=True)
class _Recording:
    """What is read at once: a recording and the utterances in it, each with its start and end in seconds."""

    name: str
    wav: str
    utterances: list[tuple[str, float, float | None]]


@dataclass(frozen=True)
class _Sound:
    """An utterance as it is compared; `bits` are empty where only exact copies are looked for."""

    utterance: str
    hash: str
    bits: np.ndarray


def _recordings(data: DataDir) -> list[_Recording]:
    found: dict[str, _Recording] = {}
    for utterance in data.utterances:
        name = data.recording(utterance)
        segment = data.segments.get(utterance)
        span = (segment.start, segment.end) if segment else (0.0, None)
        found.setdefault(name, _Recording(name, data.wav[name], [])).utterances.append((utterance, *span))
    return list(found.values())


def _listen(recording: _Recording, similar: bool, allow_pipes: bool) -> list[_Sound]:
    """The first channel of every utterance, at its own rate."""
    from speechkit.data.audio import load_recording

    heard = load_recording(recording.wav, utterance=recording.name, allow_pipes=allow_pipes)
    sounds = []
    for utterance, start, end in recording.utterances:
        piece = slice(round(start * heard.rate), None if end is None else round(end * heard.rate))
        samples = heard.samples[piece, 0]
        bits = fingerprint(samples, heard.rate) if similar else np.zeros(0, dtype=np.uint32)
        sounds.append(_Sound(utterance, sample_hash(samples, heard.rate), bits))
    return sounds


def shared_audio(
    tests: Sequence[DataDir],
    others: Sequence[DataDir],
    similar: bool = True,
    allow_pipes: bool = False,
    jobs: int = 1,
) -> Iterator[Leak]:
    """Utterances that are the same recording; the test sets are indexed, the others read through once.

    Args:
        tests: the test sets.
        others: the sets they are compared with.
        similar: also look for the same sound with another gain, codec or trimming.
        allow_pipes: run pipes in wav.scp.
        jobs: processes.

    Raises:
        BadSample: a recording cannot be decoded.
    """
    listen = partial(_listen, similar=similar, allow_pipes=allow_pipes)

    def sounds(data: DataDir) -> Iterator[_Sound]:
        return chain.from_iterable(run_parallel(listen, _recordings(data), jobs))

    hashes: dict[str, list[str]] = {}
    prints: list[tuple[str, np.ndarray]] = []
    for sound in chain.from_iterable(map(sounds, tests)):
        hashes.setdefault(sound.hash, []).append(sound.utterance)
        prints.append((sound.utterance, sound.bits))
    index = FingerprintIndex(prints)
    for other in others:
        for sound in sounds(other):
            same = hashes.get(sound.hash, [])
            for name in same:
                yield Leak("audio", name, str(other.path), sound.utterance)
            for match in index.find(sound.utterance, sound.bits):
                if match.other not in same:
                    detail = f"{100 * match.bit_errors:.0f} % bit errors"
                    yield Leak("similar audio", match.other, str(other.path), sound.utterance, detail)


def find_leaks(
    tests: Sequence[DataDir],
    others: Sequence[DataDir],
    texts: Sequence[str | Path] = (),
    *,
    audio: bool = True,
    similar: bool = True,
    min_words: int = 3,
    allow_pipes: bool = False,
    jobs: int = 1,
) -> list[Leak]:
    """Everything that test sets share with training sets and language model texts.

    Args:
        tests: the test sets.
        others: training and pre-training sets.
        texts: language model texts, one sentence a line.
        audio: decode and compare the recordings.
        similar: with `audio`, also look for near-duplicates.
        min_words: sentences shorter than this do not count.
        allow_pipes: run pipes in wav.scp.
        jobs: processes that read audio.

    Returns:
        The findings, in the order of `KINDS`.
    """
    leaks: list[Leak] = []
    for test in tests:
        for other in others:
            leaks += shared_speakers(test, other)
            leaks += shared_sentences(test, other, min_words)
    for file in texts:
        leaks += sentences_in_text(tests, file, min_words)
    if audio:
        leaks += shared_audio(tests, others, similar, allow_pipes, jobs)
    order = list(KINDS)
    return sorted(leaks, key=lambda leak: (order.index(leak.kind), leak.where, leak.test))


def report(leaks: Sequence[Leak], tests: Sequence[DataDir], waiver: str | None) -> dict:
    """The findings as JSON: counts by kind, shares of the test utterances, the waiver if any, every leak."""
    utterances = sum(len(test.utt2spk) for test in tests)
    touched = {kind: len({leak.test for leak in leaks if leak.kind == kind}) for kind in KINDS}
    return {
        "test": [str(test.path) for test in tests],
        "utterances": utterances,
        "counts": touched,
        "waived": waiver,
        "leaks": [asdict(leak) for leak in leaks],
    }
