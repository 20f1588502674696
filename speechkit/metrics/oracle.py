"""The error rate of choosing the best hypothesis of every N-best list: what reordering could reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechkit.metrics.alignment import align
from speechkit.metrics.error_rate import Counts, count
from speechkit.metrics.nbest import read_nbest


def oracle(
    path: Path, references: Mapping[str, str], hypotheses: Mapping[str, str], normalise: Callable[[str], str]
) -> dict[str, Any] | None:
    """Scores the hypothesis with the fewest errors of every utterance, the first of equal ones.

    Args:
        path: `nbest.jsonl` of a decode folder.
        references: normalised, by utterance.
        hypotheses: the normalised first hypotheses, which compete too.
        normalise: applied to the hypotheses of the lists.

    Returns:
        `{"nbest": length of the longest list, "rate", "counts"}`; None where no list has two hypotheses.

    Raises:
        InputError: a line that is no N-best list.
    """
    lists = {name: _candidates(nbest) for name, nbest in read_nbest(path).items()} if path.is_file() else {}
    longest = max(map(len, lists.values()), default=0)
    if longest < 2:
        return None
    counts = Counts()
    for utterance, reference in references.items():
        heard = [hypotheses[utterance], *map(normalise, lists.get(utterance, []))]
        best = min(dict.fromkeys(heard), key=lambda text: _errors(reference, text))
        counts += count(align(reference.split(), best.split()))
    return {"nbest": longest, "rate": counts.rate, "counts": counts.as_dict()}


def _errors(reference: str, hypothesis: str) -> int:
    from kaldialign import edit_distance

    return edit_distance(reference.split(), hypothesis.split())["total"]


def _candidates(nbest: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts that could have come first."""
    return [hypothesis["text"] for hypothesis in nbest if hypothesis.get("candidate", True)]
