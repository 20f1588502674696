"""`nbest.jsonl` of a decode folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speechkit.errors import InputError


def read_nbest(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The hypotheses of every utterance, best first, each with at least `text`.

    Raises:
        InputError: a line that is no N-best list.
    """
    lists = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            lists[row["utterance"]] = list(row["nbest"])
            [hypothesis["text"] + "" for hypothesis in row["nbest"]]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path}:{number}: not an N-best list of speechkit decode; decode again"
            ) from None
    return lists
