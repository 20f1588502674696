"""Parts of a data set, chosen by a pure function of the ids, the lengths and a seed.

Random choices order the ids by a hash of seed and id: the choice does not depend on what else is in the
directory's files or on Python's random state, and a smaller choice lies within every larger one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from speechkit.data.kaldi_dir import DataDir
from speechkit.data.tables import shown
from speechkit.errors import InputError
from speechkit.files import hash_bytes

Pick = Literal["first", "last", "shortest", "random"]


def _shuffled(ids: list[str], seed: int) -> list[str]:
    return sorted(ids, key=lambda name: (hash_bytes(str(seed).encode(), name.encode()), name))


def by_count(data: DataDir, count: int, pick: Pick, seed: int = 0, seconds: dict | None = None) -> list[str]:
    """So many utterances.

    Args:
        data: the data set.
        count: how many.
        pick: "first" or "last" in sorted order, "shortest" (ties in sorted order), or "random".
        seed: of "random".
        seconds: lengths, for "shortest".

    Raises:
        InputError: there are fewer utterances than that.
    """
    utterances = data.utterances
    if not 0 < count <= len(utterances):
        raise InputError(f"{data.path}: cannot take {count} utterances of {len(utterances)}")
    if pick == "last":
        return utterances[-count:]
    if pick == "shortest":
        assert seconds is not None
        utterances = sorted(utterances, key=lambda utterance: (seconds[utterance], utterance))
    elif pick == "random":
        utterances = _shuffled(utterances, seed)
    return utterances[:count]


def by_speakers(data: DataDir, count: int, seed: int = 0) -> list[str]:
    """Whole speakers in random order until there are at least `count` utterances (Kaldi's --speakers).

    Raises:
        InputError: there are fewer utterances than that.
    """
    if not 0 < count <= len(data.utt2spk):
        raise InputError(f"{data.path}: cannot take {count} utterances of {len(data.utt2spk)}")
    chosen: list[str] = []
    spk2utt = data.spk2utt
    for speaker in _shuffled(list(spk2utt), seed):
        if len(chosen) >= count:
            break
        chosen += spk2utt[speaker]
    return chosen


def per_speaker(data: DataDir, count: int) -> list[str]:
    """`count` utterances of each speaker, spread evenly over the sorted list; all when there are fewer."""
    if count <= 0:
        raise InputError(f"cannot take {count} utterances of each speaker")
    chosen: list[str] = []
    for utterances in data.spk2utt.values():
        step = max(1, len(utterances) // count)
        chosen += utterances[: count * step : step]
    return chosen


def by_hours(data: DataDir, hours: float, seconds: dict[str, float], seed: int = 0) -> list[str]:
    """At most so many hours, every speaker with about the same share of its own speech.

    One order of all utterances is made, and a budget takes the longest beginning of it that fits: so for
    one seed the budgets are nested. The order goes by how far into its speaker's shuffled speech the
    middle of an utterance lies, which takes from all speakers at the same pace.

    Args:
        data: the data set.
        hours: the budget.
        seconds: utterance -> length.
        seed: chooses the order.

    Raises:
        InputError: there is less speech than that, or not even one utterance fits.
    """
    available = sum(seconds[utterance] for utterance in data.utt2spk) / 3600
    if not 0 < hours <= available + 1e-9:
        raise InputError(f"{data.path}: cannot take {hours:g} hours of {available:.4f}")
    order: list[tuple[float, str]] = []
    for utterances in data.spk2utt.values():
        total = sum(seconds[utterance] for utterance in utterances)
        before = 0.0
        for utterance in _shuffled(utterances, seed):
            order.append(((before + seconds[utterance] / 2) / total if total else 0.0, utterance))
            before += seconds[utterance]
    chosen, used = [], 0.0
    for _, utterance in sorted(order):
        used += seconds[utterance]
        if used > hours * 3600 + 1e-6:
            break
        chosen.append(utterance)
    if not chosen:
        raise InputError(f"{data.path}: no utterance fits into {hours:g} hours")
    return chosen


def by_list(data: DataDir, file: str | Path, what: Literal["utterance", "speaker"]) -> list[str]:
    """The utterances, or all utterances of the speakers, whose ids begin the lines of a file.

    Raises:
        InputError: the file cannot be read, is empty, or names something that is not in the data set.
    """
    known = set(data.utt2spk) if what == "utterance" else set(data.speakers)
    wanted = read_ids(file)
    for number, name in enumerate(wanted, 1):
        if name not in known:
            raise InputError(f"{file}:{number}: no such {what} in {data.path} ({shown(name)})")
    if what == "utterance":
        return sorted(set(wanted))
    return [utterance for utterance, speaker in data.utt2spk.items() if speaker in set(wanted)]


def read_ids(file: str | Path) -> list[str]:
    """The first word of each line.

    Raises:
        InputError: missing, not UTF-8, empty, or with a blank line; it names `file:line`.
    """
    try:
        lines = Path(file).read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{file}: empty file")
    ids = []
    for number, line in enumerate(lines, 1):
        try:
            ids.append(line.decode().split()[0])
        except UnicodeDecodeError:
            raise InputError(f"{file}:{number}: not UTF-8") from None
        except IndexError:
            raise InputError(f"{file}:{number}: blank line") from None
    return ids
