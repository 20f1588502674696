"""Joining data sets, and renaming what is in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from speechkit.data.kaldi_dir import DataDir, Segment
from speechkit.data.tables import is_partial, shown, table_key
from speechkit.errors import InputError, Problem, ProblemsError

# Tables without which the rest means something else: never left out to make data sets fit together.
_ESSENTIAL = ("wav.scp", "segments", "utt2spk", "spk2utt")


def combine(sources: Sequence[DataDir], drop_partial: bool = False) -> tuple[DataDir, list[str]]:
    """Joins data sets.

    Recordings and speakers may be in several sources when their rows are equal; utterances may not.

    Args:
        sources: one or more.
        drop_partial: leave out tables that some sources have and others do not, instead of failing.

    Returns:
        The joint data set (path not set), and a message for each table left out.

    Raises:
        ProblemsError: duplicate utterances, contradicting rows, or tables missing somewhere.
    """
    all_rows = [source.rows() for source in sources]
    names = list(dict.fromkeys(name for rows in all_rows for name in rows))
    problems: list[Problem] = []
    messages: list[str] = []
    joint: dict[str, dict[str, str]] = {}
    for name in names:
        without = [source for source, rows in zip(sources, all_rows) if name not in rows]
        if without and not is_partial(name):
            message = f"no {name}, which other sources have"
            if drop_partial and name not in _ESSENTIAL:
                messages.append(f"{name} left out: {', '.join(str(s.path) for s in without)} has none")
            else:
                problems += [Problem(str(source.path), 0, message) for source in without]
            continue
        if name != "spk2utt":
            joint[name] = _join(name, sources, all_rows, problems)
    if problems:
        raise ProblemsError(problems)
    segments: dict[str, Segment] = {}
    for source in sources:
        segments.update(source.segments)
    joint.pop("segments", None)
    main = [joint.pop(name, {}) for name in ("wav.scp", "text", "utt2spk")]
    return DataDir(sources[0].path, *main, segments, joint), messages


def _join(name: str, sources: Sequence[DataDir], all_rows: list[dict], problems: list[Problem]) -> dict:
    joint: dict[str, str] = {}
    origin: dict[str, DataDir] = {}
    kind = table_key(name)
    for source, rows in zip(sources, all_rows):
        for key, value in rows.get(name, {}).items():
            if key in joint and (kind == "utterance" or joint[key] != value):
                what = f"{kind} is also in {origin[key].path}"
                what += "" if kind == "utterance" else " with another value"
                if name == "utt2spk" or kind != "utterance":  # one line for an utterance, not one a table
                    problems.append(Problem(str(source.path / name), 0, what, shown(key)))
            joint[key] = value
            origin[key] = source
    return joint


def rename(
    data: DataDir, utterance: Callable[[str], str] = str, speaker: Callable[[str], str] = str
) -> DataDir:
    """Gives utterances and speakers new ids; recordings keep theirs unless they are the utterances.

    Args:
        data: the data set.
        utterance: old utterance id -> new one.
        speaker: old speaker id -> new one.

    Raises:
        InputError: two utterances, or two speakers, would get the same id.
    """
    for what, names, new in (
        ("utterances", data.utterances, utterance),
        ("speakers", data.speakers, speaker),
    ):
        if len({new(name) for name in names}) < len(names):
            raise InputError(f"{data.path}: two {what} would get the same new id")
    rules = {"utterance": utterance, "speaker": speaker, "recording": str if data.segments else utterance}

    def renamed(rows: dict, kind: str) -> dict:
        return {rules[kind](key): value for key, value in rows.items()}

    return DataDir(
        data.path,
        renamed(data.wav, "recording"),
        renamed(data.text, "utterance"),
        {utterance(key): speaker(value) for key, value in data.utt2spk.items()},
        renamed(data.segments, "utterance"),
        {name: renamed(rows, table_key(name) or "utterance") for name, rows in data.tables.items()},
    )
