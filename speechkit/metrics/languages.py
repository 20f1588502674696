"""Error rates of every language of a set, and their mean, in which each language counts alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from speechkit.errors import InputError
from speechkit.metrics.error_rate import Counts, UtteranceScore, total


def by_language(scores: Sequence[UtteranceScore], languages: Mapping[str, str]) -> dict[str, Any]:
    """The counts of each language.

    Args:
        scores: every utterance.
        languages: utterance -> code, as in utt2lang.

    Returns:
        `{"average": mean of the rates, "by_code": {code: {"utterances", "wrong", "words", "errors", "ins",
        "del", "sub", "rate"}}}`, codes sorted.

    Raises:
        InputError: an utterance without language, or a language without reference words.
    """
    groups: dict[str, list[UtteranceScore]] = {}
    for score in scores:
        if score.utterance not in languages:
            raise InputError(f"utterance {score.utterance}: has no language in utt2lang")
        groups.setdefault(languages[score.utterance], []).append(score)
    found = {code: _row(code, groups[code]) for code in sorted(groups)}
    return {"average": statistics.fmean(row["rate"] for row in found.values()), "by_code": found}


def _row(code: str, scores: list[UtteranceScore]) -> dict[str, Any]:
    counts = total(scores)
    if not counts.units:
        raise InputError(f"language {code}: no reference words: its error rate is not defined")
    wrong = sum(score.words.errors > 0 for score in scores)
    return {"utterances": len(scores), "wrong": wrong, **counts.as_dict(), "rate": counts.rate}


def language_lines(languages: dict[str, Any], metric: str) -> list[str]:
    """`%PER-es x [ e / n, ... ]` for each language and `%PER-average x of n languages`; none for one."""
    rows = languages["by_code"]
    if len(rows) < 2:
        return []
    lines = [f"%{metric}-{code} {Counts.from_dict(row).line()}" for code, row in rows.items()]
    return [*lines, f"%{metric}-average {languages['average']:.2f} of {len(rows)} languages"]
