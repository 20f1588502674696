"""What can be said about the entries of wav.scp: without opening them, and by decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from speechkit.data.kaldi_dir import DataDir
from speechkit.errors import BadSample

# Samples at full scale beyond this share are audible distortion; a few are normal in loud speech.
CLIPPED_SHARE = 0.001
# utt2dur is often taken from headers and rounded; more than this is another recording.
DURATION_TOLERANCE = 0.05


@dataclass(frozen=True)
class Finding:
    """Something about one id of one table.

    Attributes:
        table: such as "wav.scp", "segments", "utt2num_samples".
        key: the id in that table.
        reason: short and the same for all ids with this trouble.
        detail: the particulars.
        warning: the utterance can still be used.
    """

    table: str
    key: str
    reason: str
    detail: str = ""
    warning: bool = False


def entry_finding(table: str, key: str, entry: str, allow_pipes: bool = False) -> Finding | None:
    """What is wrong with an entry of wav.scp, feats.scp ... as far as it shows without reading the data."""
    from speechkit.data.archive import split_offset
    from speechkit.data.containers import RAW_FORMAT

    def finding(reason: str, detail: str = "") -> Finding:
        return Finding(table, key, reason, detail or entry)

    if entry.endswith("|"):
        return None if allow_pipes else finding("pipe refused: --allow-pipes true runs such entries")
    if entry.startswith("|") or entry == "-":
        return finding("standard input and output are not files")
    if entry.startswith("~"):
        return finding("'~' is not expanded: write the whole path")
    if entry.endswith("]"):
        return finding("ranges are not supported: write a segments file")
    path, mark, raw = entry.rpartition("#")
    path = path if mark and RAW_FORMAT.fullmatch(raw) else entry
    path = (split_offset(path) or (path, 0))[0]
    try:
        size = os.stat(path).st_size
    except (OSError, ValueError):
        return finding(
            "no such file" + ("" if path[:1] == "/" else ", seen from the current directory"), path
        )
    if os.path.isdir(path):
        return finding("a folder, not a file", path)
    if size == 0:
        return finding("empty file", path)
    return None if os.access(path, os.R_OK) else finding("no permission to read the file", path)


class Listener:
    """Decodes the recordings of a data set and notes what is wrong with them.

    Args:
        data: the data set.
        rate: samples a second that every recording must have, or None.
        allow_pipes: run pipes.

    Attributes:
        seconds: utterance -> decoded length, as far as `listen` has come.
        rates: rate -> number of recordings.
    """

    def __init__(self, data: DataDir, rate: int | None = None, allow_pipes: bool = False) -> None:
        self.data, self.rate, self.allow_pipes = data, rate, allow_pipes
        self.seconds: dict[str, float] = {}
        self.rates: dict[int, int] = {}
        self.members: dict[str, list[str]] = {}
        for utterance in data.utterances:
            if not data.segments or utterance in data.segments:
                self.members.setdefault(data.recording(utterance), []).append(utterance)

    def listen(self, recording: str) -> Iterator[Finding]:
        """Decodes one recording and checks the utterances in it."""
        from speechkit.data.audio import load_recording

        entry = self.data.wav[recording]
        try:
            heard = load_recording(entry, utterance=recording, allow_pipes=self.allow_pipes)
        except BadSample as error:
            yield Finding("wav.scp", recording, error.reason, error.detail)
            return
        self.rates[heard.rate] = self.rates.get(heard.rate, 0) + 1
        if self.rate is not None and heard.rate != self.rate:
            yield Finding("wav.scp", recording, "wrong sample rate", f"{heard.rate} Hz, not {self.rate} Hz")
        if heard.samples.shape[1] > 1:
            detail = f"{heard.samples.shape[1]}; choose one with --channel when formatting"
            yield Finding("wav.scp", recording, "several channels", detail, warning=True)
        for utterance in self.members.get(recording, []):
            yield from self._utterance(utterance, heard.samples, heard.rate)

    def _utterance(self, utterance: str, samples: np.ndarray, rate: int) -> Iterator[Finding]:
        from speechkit.data.audio import MAX_OVERSHOOT

        table, total = "wav.scp", len(samples) / rate
        segment = self.data.segments.get(utterance)
        if segment is not None:
            table = "segments"
            over = segment.end - total
            if over > MAX_OVERSHOOT or segment.start >= total:
                detail = f"ends at {segment.end} s, the recording at {total:.3f} s"
                yield Finding(table, utterance, "segment beyond the end of its recording", detail)
                return
            if over > 1 / rate:
                detail = f"by {over:.3f} s; the rest is used"
                yield Finding(table, utterance, "segment ends after its recording", detail, warning=True)
            samples = samples[round(segment.start * rate) : round(segment.end * rate)]
        else:
            yield from self._declared(utterance, len(samples), rate)
        self.seconds[utterance] = len(samples) / rate
        yield from self._sound(table, utterance, samples)

    def _sound(self, table: str, utterance: str, samples: np.ndarray) -> Iterator[Finding]:
        if not len(samples):
            yield Finding(table, utterance, "no samples")
        elif not samples.any():
            silent = self.data.text.get(utterance) == ""  # says so itself
            yield Finding(table, utterance, "silence: every sample is zero", warning=silent)
        else:
            clipped = float((np.abs(samples) >= 32767 / 32768).mean())
            if clipped > CLIPPED_SHARE:
                yield Finding(table, utterance, "clipped", f"{100 * clipped:.1f} % of samples", warning=True)

    def _declared(self, utterance: str, samples: int, rate: int) -> Iterator[Finding]:
        declared = self.data.tables.get("utt2num_samples", {}).get(utterance)
        if declared is not None and declared != str(samples):
            detail = f"{declared} declared, {samples} decoded"
            yield Finding("utt2num_samples", utterance, "wrong number of samples", detail)
        declared = self.data.tables.get("utt2dur", {}).get(utterance)
        if declared is not None and abs(float(declared) - samples / rate) > DURATION_TOLERANCE:
            detail = f"{declared} s declared, {samples / rate:.3f} s decoded"
            yield Finding("utt2dur", utterance, "wrong duration", detail)
