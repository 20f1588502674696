"""Checks across the tables of one data directory."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from pathlib import Path

from speechkit.data.tables import Table, is_partial, shown, table_key
from speechkit.errors import Problem

AUDIO = ("wav.scp", "feats.scp", "segments")


def is_text_set(names: Collection[str]) -> bool:
    """Whether a directory with these tables is a text set: `text` (and perhaps utt2lang), nobody speaks."""
    return "text" in names and not any(name in names for name in (*AUDIO, "utt2spk", "spk2utt"))


def check_consistency(tables: dict[str, Table], path: Path) -> tuple[list[Problem], list[Problem]]:
    """Compares the tables with each other.

    Args:
        tables: parsed files by name.
        path: the directory, for messages about files that are missing.

    Returns:
        Problems, and warnings.
    """
    if is_text_set(tables):
        return _check_text_set(tables), _warnings(tables)
    problems = [
        Problem(str(path / name), 0, "missing" + mend)
        for name, mend in (("utt2spk", ""), ("spk2utt", ": speechkit fix makes it from utt2spk"))
        if name not in tables
    ]
    utt2spk = tables.get("utt2spk")
    if utt2spk is None:
        return problems, []
    keys = {
        "utterance": utt2spk.rows.keys(),
        "speaker": set(utt2spk.rows.values()),
        "recording": _recordings(tables),
    }
    for name, table in tables.items():
        if name != "utt2spk":
            kind = table_key(name) or "utterance"
            source = "segments" if kind == "recording" and "segments" in tables else "utt2spk"
            problems += _same_keys(table, keys[kind], kind, source, partial=is_partial(name))
    if "spk2utt" in tables:
        problems += _check_spk2utt(tables["spk2utt"], utt2spk)
    if "word_tags" in tables and "text" in tables:
        problems += _check_word_tags(tables["word_tags"], tables["text"])
    return problems, [*_check_prefixes(utt2spk), *_warnings(tables)]


def _check_text_set(tables: dict[str, Table]) -> list[Problem]:
    problems, text = [], tables["text"]
    for name, table in tables.items():
        if name != "text" and table_key(name) == "utterance":
            problems += _same_keys(table, text.rows.keys(), "utterance", "text", is_partial(name))
    if "word_tags" in tables:
        problems += _check_word_tags(tables["word_tags"], text)
    return problems


def _recordings(tables: dict[str, Table]) -> Collection[str]:
    if "segments" not in tables:
        return tables["utt2spk"].rows.keys()
    return {columns[0] for value in tables["segments"].rows.values() if (columns := value.split())}


def _same_keys(
    table: Table, expected: Collection[str], kind: str, source: str, partial: bool
) -> list[Problem]:
    problems = [
        Problem(table.file, table.lines[key], f"{kind} is not in {source}", shown(key))
        for key in sorted(table.rows.keys() - expected)
    ]
    if not partial:
        missing = sorted(expected - table.rows.keys())
        mend = ": speechkit fix drops it" if table.file.endswith("/text") else ""
        message = f"{kind} of {source} is missing{mend}"
        problems += [Problem(table.file, 0, message, shown(key)) for key in missing]
    return problems


def _check_spk2utt(spk2utt: Table, utt2spk: Table) -> list[Problem]:
    problems, seen = [], set()
    for speaker, value in spk2utt.rows.items():
        line = spk2utt.lines[speaker]
        for utterance in value.split():
            if utterance in seen:
                problems.append(Problem(spk2utt.file, line, "utterance listed twice", shown(utterance)))
            elif utt2spk.rows.get(utterance) != speaker:
                other = utt2spk.rows.get(utterance)
                says = f"gives it the speaker {shown(other)}" if other is not None else "does not have it"
                problems.append(Problem(spk2utt.file, line, f"utt2spk {says}", shown(utterance)))
            seen.add(utterance)
    for utterance in sorted(utt2spk.rows.keys() - seen):
        problems.append(Problem(spk2utt.file, 0, "utterance of utt2spk is missing", shown(utterance)))
    return problems


def _check_word_tags(word_tags: Table, text: Table) -> list[Problem]:
    problems = []
    for utterance, tags in word_tags.rows.items():
        words = text.rows.get(utterance)
        if words is not None and len(tags.split()) != len(words.split()):
            message = f"{len(tags.split())} tags for the {len(words.split())} words of text"
            problems.append(Problem(word_tags.file, word_tags.lines[utterance], message, shown(utterance)))
    return problems


def _check_prefixes(utt2spk: Table) -> list[Problem]:
    apart = [utterance for utterance, speaker in utt2spk.rows.items() if not utterance.startswith(speaker)]
    if not apart:
        return []
    message = f"the speaker is no prefix of the utterance id, for {len(apart)} of {len(utt2spk.rows)}"
    return [Problem(utt2spk.file, utt2spk.lines[apart[0]], message, shown(apart[0]))]


def _warnings(tables: dict[str, Table]) -> list[Problem]:
    warnings = []
    for name, table in tables.items():
        if name.endswith(".scp"):
            continue
        for what, strings in (("ids", table.rows.keys()), ("values", table.rows.values())):
            other = [
                line
                for line, string in zip(table.lines.values(), strings)
                if not unicodedata.is_normalized("NFC", string)
            ]
            if other:
                warnings.append(Problem(table.file, other[0], f"{len(other)} {what} not in Unicode form NFC"))
    return warnings
