"""Kaldi's tables of `key value` lines: parsing that finds every problem, rendering, rules for ids and values.

A table is UTF-8 with LF line ends, one space after the key, sorted by code point (which equals the byte
order of `LC_ALL=C sort`), no key twice. Only LF ends a line: U+2028 or U+0085 inside a text do not.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from speechkit.errors import Problem

MAX_ID_BYTES = 200

# A file is a table when its name matches; the first match says what its keys are.
KEYED_BY = {
    "wav.scp": "recording",
    "reco2*": "recording",
    "cmvn.scp": "speaker",
    "spk2*": "speaker",
    "utt2*": "utterance",
    "segments": "utterance",
    "text": "utterance",
    "phones": "utterance",
    "phones.txt": "utterance",
    "word_tags": "utterance",
    "km*.txt": "utterance",
    "*.scp": "utterance",
}

# Tables that may be there for some utterances only: a missing video is masked; training on frame labels
# drops an utterance without them, and counts and lists it; phones of frames serve analysis alone.
PARTIAL = ("video.scp", "km*.txt", "phones.txt")

# Tables whose rows may be empty: silence has no words, no phones and no tags.
_MAY_BE_EMPTY = ("text", "phones", "phones.txt", "word_tags", "km*.txt")
_USUAL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{,199}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
ODD_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def table_key(name: str) -> str | None:
    """What a table's keys are: "utterance", "recording" or "speaker"; None when the name is no table's."""
    return next((key for pattern, key in KEYED_BY.items() if fnmatchcase(name, pattern)), None)


def features_table(speed: float = 1.0) -> str:
    """Name of the table of dumped features of speech played at this speed: feats.scp at 1."""
    return "feats.scp" if speed == 1 else f"feats_sp{speed:g}.scp"


def is_partial(name: str) -> bool:
    """Whether a table may have rows for some utterances only."""
    return any(fnmatchcase(name, pattern) for pattern in PARTIAL)


def shown(value: str, limit: int = 100) -> str:
    """A value as it can stand in a message: control characters escaped, long ones cut."""
    value = value if len(value) <= limit else value[:limit] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in value)


def id_problem(name: str) -> str | None:
    """Why a string cannot be an id of an utterance, recording or speaker; None when it can.

    Ids become file names, so `/`, whitespace, control characters, a leading `-` or `.`, and more than
    200 bytes of UTF-8 are refused.
    """
    if _USUAL_ID.fullmatch(name):
        return None
    if not name:
        return "empty id"
    if "/" in name:
        return "an id must not contain '/'"
    if name[0] in "-.":
        return "an id must not begin with '-' or '.'"
    if any(c.isspace() or unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in name):
        return "an id must not contain whitespace or control characters"
    if len(name.encode()) > MAX_ID_BYTES:
        return f"an id must have at most {MAX_ID_BYTES} bytes, this one has {len(name.encode())}"
    return None


@dataclass
class Table:
    """One parsed file.

    Attributes:
        file: the name used in messages.
        rows: key -> value (stripped of spaces at both ends), in file order.
        lines: key -> line number, counted from 1.
        problems: what is wrong with the file on its own.
        bad: key -> what is wrong with its row, for rows that cannot be used (refused ids are in here only).
    """

    file: str
    rows: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)

    def add(self, line: int, message: str, value: str = "", key: str | None = None) -> None:
        """Notes a problem, and the row that it spoils."""
        self.problems.append(Problem(self.file, line, message, shown(value)))
        if key is not None:
            self.bad.setdefault(key, message)


def parse_table(data: bytes, file: str, name: str) -> Table:
    """Parses a table and notes every problem; never raises on content.

    Args:
        data: the file's bytes.
        file: the path to name in messages.
        name: the table's name, such as "utt2spk"; it selects the rules for the values.
    """
    table = Table(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        table.add(1, "UTF-16 text: convert it to UTF-8")
        return table
    if data.startswith(b"\xef\xbb\xbf"):
        table.add(1, "byte order mark at the start: remove it (speechkit fix does)")
        data = data[3:]
    if not data.strip():
        table.add(0, "empty file")
        return table
    raw_lines = data.split(b"\n")
    if raw_lines.pop():
        raw_lines.append(data.rsplit(b"\n", 1)[-1])
        table.add(len(raw_lines), "no line feed at the end of the file: is it complete?")
    _note_carriage_returns(table, raw_lines)
    check_value = value_rule(name)
    offset, unsorted, tabs, previous = 0, [], [], ""
    for number, raw in enumerate(raw_lines, 1):
        line = _decode(table, number, raw, offset)
        offset += len(raw) + 1
        if line is None:
            continue
        if "\t" in line:
            tabs.append(number)
            line = line.replace("\t", " ")
        key = _parse_line(table, number, line, name, check_value)
        if key is not None:
            if key < previous:
                unsorted.append((number, f"{key} after {previous}"))
            previous = key
    if tabs:
        table.add(tabs[0], f"tab instead of a space, in {len(tabs)} line(s): speechkit fix replaces them")
    if unsorted:
        number, pair = unsorted[0]
        more = f", the first of {len(unsorted)} places" if len(unsorted) > 1 else ""
        table.add(number, f"not sorted by code point{more}: speechkit fix sorts", pair)
    return table


def _note_carriage_returns(table: Table, raw_lines: list[bytes]) -> None:
    lines = [number for number, raw in enumerate(raw_lines, 1) if raw.endswith(b"\r")]
    if lines:
        table.add(lines[0], f"Windows line end (CR LF), in {len(lines)} line(s): speechkit fix mends them")
        raw_lines[:] = [raw.removesuffix(b"\r") for raw in raw_lines]


def _decode(table: Table, number: int, raw: bytes, offset: int) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place = offset + error.start
        key = raw.split(b" ")[0].decode(errors="backslashreplace")
        table.add(number, f"not UTF-8: byte 0x{raw[error.start]:02x} at byte {place} of the file", "", key)
        return None


def _parse_line(
    table: Table, number: int, line: str, name: str, check_value: Callable[[str], str | None]
) -> str | None:
    """Stores one line; returns its key, or None when it has none that counts."""
    if not line.strip():
        return table.add(number, "blank line")
    if line[0] == " ":
        return table.add(number, "space before the id")
    key, _, value = line.partition(" ")
    value = value.strip(" ")
    problem = id_problem(key)
    if problem:
        table.add(number, problem, key, key)
        return None
    if key in table.rows:
        table.add(number, f"duplicate id, first on line {table.lines[key]}", key, key)
        return key
    table.rows[key], table.lines[key] = value, number
    if value:
        problem = check_value(value)
    elif not any(fnmatchcase(name, pattern) for pattern in _MAY_BE_EMPTY):
        problem, value = "no value after the id", key
    if problem:
        table.add(number, problem, value, key)
    return key


def _text(value: str) -> str | None:
    if not value.isascii() and ODD_SPACE.search(value):
        return "a space that is not U+0020: words would be counted differently by different programs"
    return _plain(value)


def _plain(value: str) -> str | None:
    return "control character" if CONTROL.search(value) else None


def _one_word(value: str) -> str | None:
    return (
        f"expected one column after the id, found {len(value.split())}" if " " in value else id_problem(value)
    )


def _count(value: str) -> str | None:
    good = value.isascii() and value.isdigit() and len(value) < 19 and int(value) > 0
    return None if good else "expected a positive whole number"


def _seconds(value: str) -> str | None:
    return None if 0 < to_seconds(value) < math.inf else "expected a positive number of seconds"


def _labels(value: str) -> str | None:
    good = all(label.isascii() and label.isdigit() for label in value.split())
    return None if good else "expected whole numbers separated by spaces"


def _gender(value: str) -> str | None:
    return None if value in ("m", "f") else "expected m or f"


def _segment(value: str) -> str | None:
    columns = value.split()
    if len(columns) != 3:
        return f"expected recording, start and end after the id, found {len(columns)} column(s)"
    start, end = to_seconds(columns[1]), to_seconds(columns[2])
    if not 0 <= start < math.inf or not -1 <= end < math.inf:
        return "start and end must be times in seconds"
    if end < 0:
        return "an end of -1 (until the end of the recording) is not supported: write the time"
    return None if start < end else "the segment's end is not after its start"


def to_seconds(value: str) -> float:
    """A decimal number, or NaN for anything else ("1_0" and "nan" included)."""
    return float(value) if _NUMBER.fullmatch(value) else math.nan


_RULES: dict[str, Callable[[str], str | None]] = {
    "utt2spk": _one_word,
    "utt2lang": _one_word,
    "utt2num_*": _count,
    "utt2dur": _seconds,
    "reco2dur": _seconds,
    "spk2gender": _gender,
    "segments": _segment,
    "km*.txt": _labels,
}


def value_rule(name: str) -> Callable[[str], str | None]:
    """The check of a table's values: returns what is wrong, or None."""
    if name.endswith(".scp"):
        return _plain  # a file's name may hold any space
    rule = next((rule for pattern, rule in _RULES.items() if fnmatchcase(name, pattern)), None)
    return _text if rule is None else lambda value: _text(value) or rule(value)


def render_table(rows: Mapping[str, str]) -> bytes:
    """A table's bytes, sorted by code point; an empty value leaves the key alone.

    Raises UnicodeEncodeError for a lone surrogate, the one string that UTF-8 cannot hold.
    """
    return "".join(f"{key} {rows[key].strip(' ')}".rstrip(" ") + "\n" for key in sorted(rows)).encode()
