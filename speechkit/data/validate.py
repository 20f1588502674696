"""Validation of a data directory: everything that is wrong, and a summary of what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from speechkit.data.audio_checks import Finding, Listener, entry_finding
from speechkit.data.durations import told_seconds
from speechkit.data.kaldi_dir import DataDir, Scan, scan_data_dir
from speechkit.data.tables import is_partial, shown
from speechkit.errors import Problem

# Symbols of Kaldi's language models and graphs, which cannot be words as well.
_RESERVED = ("<s>", "</s>", "#0", "<eps>")


@dataclass(frozen=True)
class Checks:
    """What to check.

    Attributes:
        read_audio: decode every recording.
        allow_pipes: pipes in wav.scp are fine, and are run when the audio is read.
        need_text: `text` must be there and no transcript empty.
        need_audio: wav.scp or feats.scp must be there, and the files it names.
        rate: samples a second every recording must have, when the audio is read.
        printable: every character of `text` must be printable; otherwise others are warnings.
    """

    read_audio: bool = False
    allow_pipes: bool = False
    need_text: bool = True
    need_audio: bool = True
    rate: int | None = None
    printable: bool = False


@dataclass
class Report:
    """What was found.

    Attributes:
        data: the data set; what could be read of it.
        problems: errors.
        warnings: what should be looked at.
        seconds: utterance -> length, when the tables say it or the audio was read.
    """

    data: DataDir
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """One line of counts; then, when lengths are known, a histogram and cut-offs to choose."""
        total = sum(self.seconds.values())
        hours = f", {total / 3600:.2f} hours" if total >= 360 else f", {total:.1f} seconds" if total else ""
        line = (
            f"{self.data.path}: {len(self.data.utt2spk)} utterances, {len(self.data.speakers)} speakers"
            f"{hours}; {len(self.problems)} problem(s), {len(self.warnings)} warning(s)"
        )
        return "\n".join([line, *duration_lines(list(self.seconds.values()))])


def check_data_dir(path: str | Path, checks: Checks = Checks()) -> Report:  # noqa: B008 (frozen)
    """Checks a data directory; see `Checks`.

    Raises:
        InputError: only when `path` is no directory.
    """
    scan = scan_data_dir(path, checks.need_audio)
    report = Report(scan.data, scan.problems, scan.warnings)
    report.problems += _text_problems(scan, checks)
    (report.problems if checks.printable else report.warnings).extend(_unprintable(scan))
    if checks.need_audio:
        findings, report.seconds = check_audio(scan.data, checks)
        for finding in findings:
            table = scan.tables[finding.table]
            message = finding.reason + (f": {shown(finding.detail, 300)}" if finding.detail else "")
            problem = Problem(table.file, table.lines[finding.key], message, shown(finding.key))
            (report.warnings if finding.warning else report.problems).append(problem)
    report.problems.sort()
    if not report.problems and not report.seconds:
        report.seconds = told_seconds(scan.data) or {}
    return report


def _text_problems(scan: Scan, checks: Checks) -> Iterator[Problem]:
    table = scan.tables.get("text")
    if table is None:
        if checks.need_text:
            path = str(scan.data.path / "text")
            yield Problem(path, 0, "missing: --no-text true accepts a set without transcripts")
        return
    for utterance, text in table.rows.items():
        words = text.split(" ")
        if not text and checks.need_text:
            message = "empty transcript: --no-text true accepts it, speechkit fix drops it"
            yield Problem(table.file, table.lines[utterance], message, shown(utterance))
        for word in _RESERVED:
            if word in words:
                yield Problem(table.file, table.lines[utterance], "a reserved symbol as a word", word)


def _unprintable(scan: Scan) -> Iterator[Problem]:
    table = scan.tables.get("text")
    for utterance, text in table.rows.items() if table else ():
        odd = sorted({f"U+{ord(c):04X}" for c in text if not c.isprintable()})
        if odd and utterance not in table.bad:
            message = f"characters that are not printable: {' '.join(odd)}"
            yield Problem(table.file, table.lines[utterance], message, shown(utterance))


def check_audio(data: DataDir, checks: Checks) -> tuple[list[Finding], dict[str, float]]:
    """Findings about the recordings, and the decoded lengths when `checks.read_audio`."""
    listener = Listener(data, checks.rate, checks.allow_pipes)
    findings: list[Finding] = []
    for recording, entry in data.wav.items():
        trouble = entry_finding("wav.scp", recording, entry, checks.allow_pipes)
        if trouble is not None:
            findings.append(trouble)
        elif checks.read_audio:
            findings += listener.listen(recording)
    for name, rows in data.tables.items():
        if name.endswith(".scp"):
            found = (entry_finding(name, key, entry) for key, entry in rows.items())
            findings += [replace(f, warning=is_partial(name)) for f in found if f is not None]
    if len(listener.rates) > 1:
        counts = ", ".join(f"{count} at {rate} Hz" for rate, count in sorted(listener.rates.items()))
        findings.append(Finding("wav.scp", next(iter(data.wav)), "mixed sample rates", counts, warning=True))
    return findings, listener.seconds


def duration_lines(seconds: Iterable[float], bars: int = 8, width: int = 40) -> list[str]:
    """A histogram of lengths, and cut-offs that lose half a percent of the utterances at either end.

    Args:
        seconds: lengths; none gives no lines.
        bars: at most so many rows.
        width: characters of the longest bar.
    """
    lengths = np.asarray(list(seconds), dtype=np.float64)
    if not len(lengths):
        return []
    low, high = (
        np.floor(10 * np.quantile(lengths, 0.005)) / 10,
        np.ceil(10 * np.quantile(lengths, 0.995)) / 10,
    )
    step = max(0.5, np.ceil(2 * lengths.max() / bars) / 2)
    edges = step * np.arange(int(lengths.max() // step) + 2)
    counts, _ = np.histogram(lengths, edges)
    lines = [
        f"  {start:5.1f} -{end:5.1f} s {count:>8} {'#' * int(np.ceil(width * count / counts.max()))}".rstrip()
        for start, end, count in zip(edges, edges[1:], counts)
    ]
    kept = lengths[(lengths >= low) & (lengths <= high)]
    lines.append(
        f"  {lengths.min():.2f} to {lengths.max():.2f} s, median {np.median(lengths):.2f}; "
        f"{low:.1f} to {high:.1f} s would keep {len(kept)} of {len(lengths)} utterances, "
        f"{100 * kept.sum() / lengths.sum():.1f} % of the hours"
    )
    return lines
