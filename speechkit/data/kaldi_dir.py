"""Kaldi data directories: the tables of one data set, read strictly and written all or none.

A directory with `text` alone (and utt2lang, word_tags) is a text set: sentences for a language model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from speechkit.data.consistency import check_consistency, is_text_set
from speechkit.data.labels import is_label_table
from speechkit.data.tables import Table, parse_table, render_table, shown, table_key
from speechkit.errors import InputError, Problem, ProblemsError
from speechkit.files import atomic_folder, disk_full, sync_folder

# A complete set of new tables on its way into an existing directory; see `_commit`.
_READY = ".tables.ready"


class Segment(NamedTuple):
    """A piece of a recording, in seconds."""

    recording: str
    start: float
    end: float


@dataclass
class DataDir:
    """One data set.

    Attributes:
        path: where it was read from.
        wav: recording -> entry of `wav.scp` (a path, `ark:offset`, or a pipe).
        text: utterance -> transcript; empty when there is no `text`.
        utt2spk: utterance -> speaker.
        segments: utterance -> its piece of a recording; empty when every utterance is a whole recording.
        tables: name -> rows of every other table, such as utt2lang, word_tags, feats.scp, spk2gender.
    """

    path: Path = Path()
    wav: dict[str, str] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    utt2spk: dict[str, str] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    tables: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def utterances(self) -> list[str]:
        """Utterance ids, sorted by code point; in a text set, those of its sentences."""
        return sorted(self.utt2spk or self.text)

    @property
    def speakers(self) -> list[str]:
        """Speaker ids, sorted by code point."""
        return sorted(set(self.utt2spk.values()))

    @property
    def spk2utt(self) -> dict[str, list[str]]:
        """Speaker -> its utterances, all sorted."""
        return invert(self.utt2spk)

    def recording(self, utterance: str) -> str:
        """The recording an utterance lies in: its own id when there are no segments."""
        return self.segments[utterance].recording if self.segments else utterance

    def select(self, utterances: Iterable[str]) -> DataDir:
        """The same data set with these utterances only, and only the recordings and speakers they need.

        Raises:
            InputError: an id is not in the data set.
        """
        chosen = set(utterances)
        unknown = sorted(chosen.difference(self.utterances))
        if unknown:
            raise InputError(f"{self.path}: no such utterance: {shown(', '.join(unknown))}")
        keep = {
            "utterance": chosen,
            "recording": {self.recording(utterance) for utterance in chosen},
            "speaker": {self.utt2spk[utterance] for utterance in chosen & self.utt2spk.keys()},
        }
        return DataDir(
            self.path,
            _only(self.wav, keep["recording"]),
            _only(self.text, chosen),
            _only(self.utt2spk, chosen),
            _only(self.segments, chosen),
            {name: _only(rows, keep[table_key(name) or "utterance"]) for name, rows in self.tables.items()},
        )

    def rows(self) -> dict[str, dict[str, str]]:
        """All tables by name as plain strings, `spk2utt` included, tables without rows left out."""
        segments = {
            utterance: f"{segment.recording} {float(segment.start)!r} {float(segment.end)!r}"
            for utterance, segment in self.segments.items()
        }
        spk2utt = {speaker: " ".join(members) for speaker, members in self.spk2utt.items()}
        named = {"wav.scp": self.wav, "segments": segments, "text": self.text, "utt2spk": self.utt2spk}
        return {name: rows for name, rows in {**named, "spk2utt": spk2utt, **self.tables}.items() if rows}


def _only(rows: dict, keys: set[str]) -> dict:
    return {key: rows[key] for key in sorted(keys) if key in rows}


def invert(utt2spk: dict[str, str]) -> dict[str, list[str]]:
    """utt2spk -> spk2utt, speakers and their utterances sorted by code point."""
    spk2utt: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        spk2utt.setdefault(utt2spk[utterance], []).append(utterance)
    return dict(sorted(spk2utt.items()))


@dataclass
class Scan:
    """What is in a directory and everything that is wrong with it.

    Attributes:
        data: the data set; meaningful only when there are no problems.
        tables: the parsed files by name.
        problems: errors.
        warnings: findings that do not make the directory unusable.
    """

    data: DataDir
    tables: dict[str, Table]
    problems: list[Problem]
    warnings: list[Problem]


def scan_data_dir(path: str | Path, need_audio: bool = True, labels: bool = True) -> Scan:
    """Reads a directory and notes every problem instead of raising.

    Args:
        path: the directory.
        need_audio: it is a problem when there is neither wav.scp nor feats.scp.
        labels: False leaves out tables with a label or phone for every frame, which can be gigabytes.

    Raises:
        InputError: only when `path` is no directory that can be listed.
    """
    path = Path(path)
    try:
        _commit(path)
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such directory") from None
    except NotADirectoryError:
        raise InputError(f"{path}: not a directory") from None
    contents, unreadable = {}, []
    for name in names:
        by_frame = is_label_table(name) or name == "phones.txt"
        if name.startswith(".") or table_key(name) is None or (by_frame and not labels):
            continue
        file = path / name
        if file.exists() and not file.is_file():  # a named pipe would block the read
            unreadable.append(Problem(str(file), 0, "not a regular file"))
            continue
        try:
            contents[name] = file.read_bytes()
        except OSError as error:
            unreadable.append(Problem(str(file), 0, f"cannot be read: {error.strerror}"))
    scan = scan_contents(contents, path)
    if need_audio and not contents.keys() & {"wav.scp", "feats.scp"}:
        unreadable.append(Problem(str(path / "wav.scp"), 0, "missing, and so is feats.scp"))
    return Scan(scan.data, scan.tables, sorted(unreadable + scan.problems), scan.warnings)


def scan_contents(contents: dict[str, bytes], path: Path) -> Scan:
    """Like `scan_data_dir`, of tables given as bytes; `path` is for the messages."""
    tables = {name: parse_table(data, str(path / name), name) for name, data in contents.items()}
    problems, warnings = check_consistency(tables, path)
    problems += [problem for table in tables.values() for problem in table.problems]
    return Scan(data_from(tables, path), tables, sorted(problems), warnings)


def data_from(tables: dict[str, Table], path: Path) -> DataDir:
    """The data set of parsed tables, rows that cannot be used left out."""
    rows = {
        name: {key: table.rows[key] for key in sorted(table.rows) if key not in table.bad}
        for name, table in tables.items()
    }
    rows.pop("spk2utt", None)
    segments = {}
    for utterance, value in rows.pop("segments", {}).items():
        recording, start, end = value.split()
        segments[utterance] = Segment(recording, float(start), float(end))
    return DataDir(path, *(rows.pop(name, {}) for name in ("wav.scp", "text", "utt2spk")), segments, rows)


def holds_text_only(path: str | Path) -> bool:
    """Whether a directory is a text set: sentences that nobody speaks."""
    return is_text_set([file.name for file in table_files(path)])


def check_output(output: str | Path, sources: Iterable[str | Path]) -> None:
    """Raises InputError when a command would write over one of the directories that it reads."""
    for source in sources:
        if Path(output).resolve() == Path(source).resolve():
            raise InputError(f"{output}: is also the source; choose another directory for the output")


def table_files(path: str | Path) -> list[Path]:
    """The tables in a directory, sorted: what a command that reads the directory depends on."""
    files = Path(path).iterdir() if Path(path).is_dir() else []
    return sorted(f for f in files if table_key(f.name) and not f.name.startswith(".") and f.is_file())


def read_data_dir(path: str | Path, need_audio: bool = True, labels: bool = True) -> DataDir:
    """Reads a data directory; the audio itself is not touched.

    Args:
        path: the directory.
        need_audio: refuse a directory that has neither wav.scp nor feats.scp.
        labels: False leaves out tables with a label or phone for every frame, which can be gigabytes.

    Raises:
        InputError: there is no such directory.
        ProblemsError: anything is wrong with the tables; every problem is in it.
    """
    scan = scan_data_dir(path, need_audio, labels)
    if scan.problems:
        raise ProblemsError(scan.problems)
    return scan.data


def validate_data_dir(
    path: str | Path,
    read_audio: bool = False,
    allow_pipes: bool = False,
    *,
    need_text: bool = True,
    need_audio: bool = True,
    rate: int | None = None,
) -> list[Problem]:
    """Every problem of a data directory; see `speechkit.data.validate.check_data_dir` for the arguments."""
    from speechkit.data.validate import Checks, check_data_dir

    checks = Checks(read_audio, allow_pipes, need_text, need_audio, rate)
    return check_data_dir(path, checks).problems


def write_data_dir(data: DataDir, path: str | Path) -> None:
    """Writes a data set's tables, `spk2utt` included: all of them or, on any error, none.

    What else lies in the directory (audio, archives, ledgers) stays; tables that the data set does not
    have are removed. `data.path` is not changed.

    Raises:
        ProblemsError: `read_data_dir` would refuse the result; nothing was written.
        InputError: the disk is full, or `path` is a file.
    """
    path = Path(path)
    contents = _render(data, path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, not a directory")
    if not path.exists():
        with atomic_folder(path) as folder:
            for name, content in contents.items():
                (folder / name).write_bytes(content)
        return
    try:
        _commit(path)
        _stage(path, contents)
        _commit(path)
    except OSError as error:
        raise disk_full(error, path) or error from error


def _render(data: DataDir, path: Path) -> dict[str, bytes]:
    """The files' bytes, read back and compared, so that we never write what we would not read."""
    contents, problems, rows = {}, [], data.rows()
    for name, table in rows.items():
        if table_key(name) is None or "/" in name or name.startswith("."):
            problems.append(Problem(str(path / name), 0, "not the name of a table", shown(name)))
            continue
        try:
            contents[name] = render_table(table)
        except UnicodeEncodeError as error:
            problems.append(Problem(str(path / name), 0, "not writable as UTF-8", shown(str(error.object))))
    if problems:
        raise ProblemsError(problems)
    scan = scan_contents(contents, path)
    for name, table in scan.tables.items():
        parsed = table.rows
        changed = [key for key, value in rows[name].items() if parsed.get(key) != value.strip(" ")]
        problems += [Problem(table.file, 0, "not writable as one line", shown(key)) for key in changed]
    problems = scan.problems or problems
    if problems:
        raise ProblemsError(problems)
    return contents


def _stage(path: Path, contents: dict[str, bytes]) -> None:
    """Writes the new tables into a hidden folder of the directory; its rename to `_READY` is the commit."""
    temporary = path / f".tables.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, content in [*contents.items(), (".names", "\n".join(contents).encode())]:
            with open(temporary / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(temporary)
        os.replace(temporary, path / _READY)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _commit(path: Path) -> None:
    """Moves staged tables into place. Readers call it too: it finishes what a killed writer had begun."""
    ready = path / _READY
    if not ready.is_dir():
        return
    if not (ready / ".names").exists():  # killed between the last two steps below
        ready.rmdir()
        return
    names = (ready / ".names").read_text(encoding="utf-8").split("\n")
    for name in names:
        if (ready / name).exists():
            os.replace(ready / name, path / name)
    for entry in os.scandir(path):
        stale = table_key(entry.name) and entry.name not in names and not entry.name.startswith(".")
        if stale and not entry.is_dir():
            os.unlink(entry.path)
    sync_folder(path)
    (ready / ".names").unlink()
    ready.rmdir()
