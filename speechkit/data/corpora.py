"""Corpora as data sets: through lhotse's recipes, or from a folder of audio without text."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechkit.data.kaldi_dir import DataDir, Segment
from speechkit.errors import InputError

AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".m4a")


def read_corpus(
    prepare: Callable[..., dict], corpus: str | Path, prefix: str = "", **options: Any
) -> tuple[dict[str, DataDir], list[str]]:
    """Runs a recipe of `lhotse.recipes` and turns its parts into data sets.

    Args:
        prepare: such as `lhotse.recipes.prepare_librispeech`.
        corpus: folder of the corpus; what the recipe reads must lie below it.
        prefix: put before every id, so that corpora can be joined.
        **options: further arguments of the recipe.

    Returns:
        The data set of each part, and a line for each recording that the recipe left out.

    Raises:
        InputError: the corpus is not as the recipe expects it.
    """
    from lhotse.audio.utils import AudioLoadingError

    corpus = Path(corpus).absolute()
    if not corpus.is_dir():
        raise InputError(f"{corpus}: no such folder")
    with _warnings() as said:
        try:
            manifests = prepare(corpus, **options)
        except (AudioLoadingError, AssertionError, OSError, ValueError, LookupError) as error:
            why = " ".join(str(error).split())[:300]
            kind = type(error).__name__
            raise InputError(f"{corpus}: {prepare.__name__} cannot read it: {kind}: {why}") from error
    return {part: _data_set(sets.values(), corpus, prefix) for part, sets in manifests.items()}, said


def _data_set(manifests: Iterable[Any], corpus: Path, prefix: str) -> DataDir:
    # By kind, not by name: one recipe of lhotse 1.33 (aishell3) has the two names the wrong way round.
    by_kind = {type(manifest).__name__: manifest for manifest in manifests}
    recordings = {recording.id: recording for recording in by_kind["RecordingSet"]}
    data, pieces = DataDir(corpus), 0
    for piece in by_kind["SupervisionSet"]:
        recording, utterance = recordings[piece.recording_id], prefix + piece.id
        if utterance in data.utt2spk:
            raise InputError(f"{corpus}: two utterances are called {piece.id}")
        data.wav[prefix + recording.id] = _audio_file(recording, corpus)
        data.utt2spk[utterance] = prefix + str(piece.speaker or piece.recording_id)
        if piece.text:
            data.text[utterance] = " ".join(piece.text.split())
        end = min(piece.start + piece.duration, recording.duration)
        data.segments[utterance] = Segment(prefix + recording.id, piece.start, end)
        pieces += piece.start > 0 or end < recording.duration - 1e-3 or piece.id != recording.id
    if not pieces:
        data.segments.clear()
    return data


def _audio_file(recording: Any, corpus: Path) -> str:
    (source,) = recording.sources
    if source.type != "file":
        raise InputError(f"{corpus}: recording {recording.id} is a {source.type}, not a file")
    path = os.path.normpath(source.source)
    if not Path(path).is_relative_to(os.path.normpath(corpus)):
        raise InputError(f"{corpus}: recording {recording.id} lies outside the corpus: {path}")
    return path


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Gathers what lhotse's recipes only log: recordings that they leave out."""
    said: list[str] = []
    lock = threading.Lock()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with lock:
                said.append(" ".join(record.getMessage().split()))

    handler, root = Handler(logging.WARNING), logging.getLogger()
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)


def read_folder(folder: str | Path, prefix: str = "") -> DataDir:
    """Every audio file below a folder as an utterance without text; its speaker is the folder it lies in.

    Args:
        folder: of the audio, with any folders inside.
        prefix: put before every id.

    Raises:
        InputError: there is no audio file, or two would have the same id.
    """
    folder = Path(folder).absolute()
    data = DataDir(folder)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in AUDIO or not path.is_file():
            continue
        place = path.relative_to(folder).with_suffix("")
        utterance = prefix + "-".join(_plain(part) for part in place.parts)
        if utterance in data.utt2spk:
            raise InputError(f"{path}: {data.wav[utterance]} would have the same id, {utterance}")
        data.wav[utterance] = str(path)
        data.utt2spk[utterance] = prefix + ("-".join(_plain(part) for part in place.parts[:-1]) or "all")
    if not data.wav:
        raise InputError(f"{folder}: no audio file in it ({', '.join(AUDIO)})")
    return data


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in name)
