"""Leakage: what a test set shares with the material a system was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from speechkit.data.fingerprint import FingerprintIndex, fingerprint, sample_hash
from speechkit.data.kaldi_dir import DataDir
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


def _sounds(data: DataDir, allow_pipes: bool) -> Iterator[tuple[str, np.ndarray, int]]:
    """Every utterance's first channel at its own rate, each recording decoded once."""
    from speechkit.data.audio import load_recording

    recordings: dict[str, list[str]] = {}
    for utterance in data.utterances:
        recordings.setdefault(data.recording(utterance), []).append(utterance)
    for recording, utterances in recordings.items():
        heard = load_recording(data.wav[recording], utterance=recording, allow_pipes=allow_pipes)
        samples = heard.samples[:, 0]
        for utterance in utterances:
            segment = data.segments.get(utterance)
            piece = (
                slice(round(segment.start * heard.rate), round(segment.end * heard.rate))
                if segment
                else slice(None)
            )
            yield utterance, samples[piece], heard.rate


def shared_audio(
    tests: Sequence[DataDir], others: Sequence[DataDir], similar: bool = True, allow_pipes: bool = False
) -> Iterator[Leak]:
    """Utterances that are the same recording; the test sets are indexed, the others read through once.

    Args:
        tests: the test sets.
        others: the sets they are compared with.
        similar: also look for the same sound with another gain, codec or trimming.
        allow_pipes: run pipes in wav.scp.

    Raises:
        BadSample: a recording cannot be decoded.
    """
    hashes: dict[str, list[str]] = {}
    prints: list[tuple[str, np.ndarray]] = []
    for test in tests:
        for utterance, samples, rate in _sounds(test, allow_pipes):
            hashes.setdefault(sample_hash(samples, rate), []).append(utterance)
            if similar:
                prints.append((utterance, fingerprint(samples, rate)))
    index = FingerprintIndex(prints)
    for other in others:
        for utterance, samples, rate in _sounds(other, allow_pipes):
            same = hashes.get(sample_hash(samples, rate), [])
            for name in same:
                yield Leak("audio", name, str(other.path), utterance)
            if similar:
                for match in index.find(utterance, fingerprint(samples, rate)):
                    if match.other not in same:
                        detail = f"{100 * match.bit_errors:.0f} % bit errors"
                        yield Leak("similar audio", match.other, str(other.path), utterance, detail)


def find_leaks(
    tests: Sequence[DataDir],
    others: Sequence[DataDir],
    texts: Sequence[str | Path] = (),
    *,
    audio: bool = True,
    similar: bool = True,
    min_words: int = 3,
    allow_pipes: bool = False,
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
        leaks += shared_audio(tests, others, similar, allow_pipes)
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
