"""`nbest.jsonl` of a decode folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechkit.errors import InputError
from speechkit.files import write_jsonl

SCORES = ("score", "ctc", "lm")
"""Log-probabilities of a hypothesis. Minus infinity, the score of nothing said, is `null` in the file: JSON
has no infinity, and other programs refuse the `-Infinity` that Python writes."""


def write_nbest(path: Path, lists: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Writes an utterance a line, atomically; numbers that are not finite become `null`.

    Args:
        path: the file.
        lists: utterances and their hypotheses, best first, each with at least `text`.
    """
    rows = ((utterance, [_plain(hypothesis) for hypothesis in nbest]) for utterance, nbest in lists)
    write_jsonl(path, ({"utterance": utterance, "nbest": nbest} for utterance, nbest in rows))


def read_nbest(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The hypotheses of every utterance, best first, each with at least `text`; see also `SCORES`.

    Raises:
        InputError: a line that is no N-best list.
    """
    lists = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            lists[row["utterance"]] = [_read(hypothesis) for hypothesis in row["nbest"]]
            [hypothesis["text"] + "" for hypothesis in row["nbest"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{path}:{number}: not an N-best list of speechkit decode; decode again"
            ) from None
    return lists


def _plain(hypothesis: Mapping[str, Any]) -> dict[str, Any]:
    infinite = [k for k, v in hypothesis.items() if isinstance(v, float) and not math.isfinite(v)]
    return {**hypothesis, **dict.fromkeys(infinite)}


def _read(hypothesis: Mapping[str, Any]) -> dict[str, Any]:
    nothing = [name for name in SCORES if hypothesis.get(name, 0) is None]
    return {**hypothesis, **dict.fromkeys(nothing, -math.inf)}
