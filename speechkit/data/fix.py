"""Mending a data directory: the form is repaired, broken or incomplete utterances are rejected by name."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from speechkit.data.kaldi_dir import DataDir, data_from, scan_data_dir, write_data_dir
from speechkit.data.ledger import Kind, Ledger
from speechkit.data.tables import CONTROL, ODD_SPACE, Table, is_partial, parse_table, render_table, table_key
from speechkit.data.validate import Checks, check_audio
from speechkit.errors import InputError, Problem, ProblemsError
from speechkit.files import write_jsonl

# Data sets whose names begin like this are for evaluation unless one says otherwise.
EVALUATION_NAMES = ("dev", "test", "eval", "valid")
_TEXTS = ("text", "phones", "word_tags")


def kind_of(path: str | Path) -> Kind:
    """ "evaluation" when the directory's name begins like one of EVALUATION_NAMES, else "train"."""
    return "evaluation" if Path(path).resolve().name.lower().startswith(EVALUATION_NAMES) else "train"


def repair(data: bytes, name: str) -> tuple[bytes, Counter[str]]:
    """Mends the form of a table and nothing else.

    Byte order marks, CR LF, tabs, blank lines, spaces around lines, control characters and odd spaces
    within texts, repeated identical lines, a missing last line feed, and the order of lines.

    Returns:
        The new bytes, and how often each repair was made.
    """
    repairs: Counter[str] = Counter()
    if data.startswith(b"\xef\xbb\xbf"):
        data, repairs["byte order mark removed"] = data[3:], 1
    if data and not data.endswith(b"\n"):
        data, repairs["last line feed added"] = data + b"\n", 1
    lines = []
    for raw in data.split(b"\n")[:-1]:
        line = _repair_line(raw, name)
        repairs["lines with other spaces or line ends"] += line != raw
        if line:
            lines.append(line)
    unique = list(dict.fromkeys(lines))
    repairs["repeated lines removed"] += len(lines) - len(unique)
    ordered = sorted(unique, key=lambda line: line.split(b" ", 1)[0])
    repairs["files sorted"] += ordered != unique
    return b"".join(line + b"\n" for line in ordered), +repairs


def _repair_line(raw: bytes, name: str) -> bytes:
    line = re.sub(rb"^(?: |\xef\xbb\xbf)+", b"", raw.replace(b"\r", b"").replace(b"\t", b" ")).rstrip(b" ")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return line  # rejected later, by its id
    if name in _TEXTS:
        text = ODD_SPACE.sub(" ", CONTROL.sub(" ", text)).rstrip(" ").lstrip(" \ufeff")
    return text.encode()


@dataclass
class Fixed:
    """The outcome: what is kept, every utterance's fate, and the repairs made by kind."""

    data: DataDir
    ledger: Ledger
    repairs: Counter[str]


def fix_data_dir(
    path: str | Path,
    output: str | Path | None = None,
    *,
    kind: Kind | None = None,
    max_reject: float = 0.01,
    checks: Checks = Checks(),  # noqa: B008 (frozen)
) -> Fixed:
    """Repairs a directory, rejects what cannot be used, and writes the rest.

    Rejected utterances are listed with their reasons in `rejected.jsonl` beside the tables; when the
    directory is fixed in place its old tables go to `.backup/`, as with Kaldi.

    Args:
        path: the directory.
        output: where to write; None fixes in place.
        kind: "train", or "evaluation", from which nothing may be rejected; None tells by `kind_of`.
        max_reject: for "train", the largest share of utterances or seconds that may be rejected.
        checks: `need_text` rejects empty transcripts, `need_audio` missing files, `read_audio` bad audio.

    Raises:
        InputError: too much would be rejected, or all of it; nothing was written.
        ProblemsError: a whole table is unusable.
    """
    path = Path(path)
    scan = scan_data_dir(path)  # also says clearly when there is no such directory
    repairs: Counter[str] = Counter()
    tables = {}
    for name in scan.tables:
        content, made = repair((path / name).read_bytes(), name)
        tables[name] = parse_table(content, str(path / name), name)
        repairs += made
    _refuse_unusable(tables, path)
    data = data_from(tables, path)
    reasons = _reasons(tables, data, checks)
    seconds = _seconds(data)
    findings, heard = check_audio(data, checks) if checks.need_audio else ([], {})
    seconds.update(heard)
    by_recording = _members(data)
    for finding in findings:
        if not finding.warning:
            members = by_recording.get(finding.key, []) if finding.table == "wav.scp" else [finding.key]
            for utterance in members:
                reasons.setdefault(utterance, (finding.reason, finding.detail))

    ledger = Ledger("fix", kind or kind_of(output or path), max_reject)
    every = set(data.utt2spk) | set(reasons)
    for utterance in sorted(every):
        if utterance in reasons:
            ledger.drop(utterance, seconds.get(utterance, 0.0), *reasons[utterance])
        else:
            ledger.keep(utterance, seconds.get(utterance, 0.0))
    ledger.check(every)
    if not ledger.kept:
        raise InputError(f"{path}: no utterance can be kept")
    kept = data.select(ledger.kept)
    _write(path, Path(output or path), kept, ledger, list(tables))
    return Fixed(kept, ledger, repairs)


def _refuse_unusable(tables: dict[str, Table], path: Path) -> None:
    """Problems that belong to no row cannot be mended by rejecting utterances."""
    if "utt2spk" not in tables and "spk2utt" in tables:
        tables["utt2spk"] = Table(str(path / "utt2spk"))
        for speaker, value in tables["spk2utt"].rows.items():
            tables["utt2spk"].rows.update(dict.fromkeys(value.split(), speaker))
    tables.pop("spk2utt", None)  # made again from utt2spk
    problems = [p for table in tables.values() if not table.rows for p in table.problems]
    if "utt2spk" not in tables:
        problems.append(Problem(str(path / "utt2spk"), 0, "missing, and so is spk2utt"))
    if problems:
        raise ProblemsError(problems)


def _members(data: DataDir) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for utterance in data.utterances:
        if not data.segments or utterance in data.segments:
            members.setdefault(data.recording(utterance), []).append(utterance)
    return members


def _seconds(data: DataDir) -> dict[str, float]:
    known = {utterance: float(value) for utterance, value in data.tables.get("utt2dur", {}).items()}
    known.update({utterance: segment.end - segment.start for utterance, segment in data.segments.items()})
    return known


def _reasons(tables: dict[str, Table], data: DataDir, checks: Checks) -> dict[str, tuple[str, str]]:
    """Why an utterance cannot be kept, as far as the tables tell: utterance -> (reason, detail)."""
    found: dict[str, tuple[str, str]] = {}
    rows = {name: {**table.rows, **dict.fromkeys(table.bad, "")} for name, table in tables.items()}
    by_kind = {
        kind: {n for n in tables if table_key(n) == kind} for kind in ("utterance", "recording", "speaker")
    }
    every = set().union(*(rows[name] for name in by_kind["utterance"]))
    if not data.segments and "segments" not in tables:
        every |= set(rows.get("wav.scp", ()))
    for utterance in sorted(every):
        segment = data.segments.get(utterance)
        recording = segment.recording if segment else utterance
        keys = {"utterance": utterance, "recording": recording, "speaker": data.utt2spk.get(utterance)}
        for kind, names in by_kind.items():
            for name in sorted(names):
                bad = tables[name].bad.get(keys[kind])
                if bad:
                    found.setdefault(utterance, (f"{name}: {bad.split(',')[0].split(':')[0]}", bad))
                elif keys[kind] not in tables[name].rows and not is_partial(name):
                    found.setdefault(utterance, (f"{kind} not in {name}", str(keys[kind])))
        if checks.need_text and utterance in data.text and not data.text[utterance]:
            found.setdefault(utterance, ("empty transcript", ""))
        tags = data.tables.get("word_tags", {}).get(utterance)
        if tags is not None and len(tags.split()) != len(data.text.get(utterance, "").split()):
            found.setdefault(utterance, ("word_tags: not one tag for each word", ""))
    return found


def _write(path: Path, output: Path, kept: DataDir, ledger: Ledger, names: list[str]) -> None:
    rejected = output / "rejected.jsonl"
    rows = []
    if output.resolve() == path.resolve():
        if rejected.exists():  # of an earlier call: nothing that was rejected is forgotten
            rows = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
        if not ledger.dropped and all(_unchanged(path / name, rows_) for name, rows_ in kept.rows().items()):
            return
        (path / ".backup").mkdir(exist_ok=True)
        for name in names:
            if (path / name).exists():
                shutil.copy2(path / name, path / ".backup" / name)
    write_data_dir(kept, output)
    rows += [
        {"utterance": fate.utterance, "seconds": fate.seconds, "reason": fate.reason, "detail": fate.detail}
        for fate in ledger.dropped
    ]
    write_jsonl(rejected, rows)


def _unchanged(file: Path, rows: dict[str, str]) -> bool:
    return file.exists() and file.read_bytes() == render_table(rows)
