"""result.json and the files beside it: what a scored decode leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.errors import InputError
from speechkit.files import hash_file, read_json, write_json, write_jsonl, write_text
from speechkit.metrics.alignment import shown
from speechkit.metrics.decode_folder import DecodeFolder
from speechkit.metrics.environment import environment
from speechkit.metrics.error_rate import Counts, UtteranceScore, add_classes, by_speaker, confusions, total
from speechkit.metrics.fused import fusion_line
from speechkit.metrics.languages import language_lines
from speechkit.metrics.significance import Interval, Utterances, interval

NAMES = {"word": "WER", "phone": "PER"}
"""Unit -> name of its error rate."""

KEPT = ("system", "seed", "set", "how", "tuned_on", "checkpoint", "parameters", "hardware")
KEPT_TOO = (
    *("config_hash", "data_hash", "versions", "commands"),
    *("seconds_audio", "seconds_wall", "seconds_after_encoder", "started"),
)


def arrays(scores: Sequence[UtteranceScore], word_class: str | None = None) -> Utterances:
    """Scores as the bootstrap reads them, all words or one class of them."""
    return as_arrays(_rows(scores), word_class)


def _rows(scores: Sequence[UtteranceScore]) -> list[dict[str, Any]]:
    rows = []
    for score in sorted(scores, key=lambda score: score.utterance):
        row = {"utterance": score.utterance, "speaker": score.speaker, **score.words.as_dict()}
        if score.characters is not None:
            row |= {"characters": score.characters.units, "character_errors": score.characters.errors}
        rows.append(row | {"classes": score.classes})
    return rows


def as_arrays(
    rows: Sequence[dict[str, Any]], word_class: str | None = None, characters: bool = False
) -> Utterances:
    """Rows of utterances.jsonl as arrays.

    Args:
        rows: sorted by utterance.
        word_class: count the reference words of this class only.
        characters: count characters, not words.

    Raises:
        InputError: no word is in the class, or characters were not counted.
    """
    if characters:
        if not all("characters" in row for row in rows):
            raise InputError("characters were not counted; score words, not phones")
        pairs = [(row["characters"], row["character_errors"]) for row in rows]
    elif word_class is None:
        pairs = [(row["words"], row["errors"]) for row in rows]
    else:
        pairs = [row["classes"].get(word_class, (0, 0)) for row in rows]
        if not any(words for words, _ in pairs):
            known = sorted({name for row in rows for name in row["classes"]})
            raise InputError(f"no word of class '{word_class}'; classes here: {', '.join(known) or 'none'}")
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    ids, speakers = (tuple(row[key] for row in rows) for key in ("utterance", "speaker"))
    return Utterances(ids, speakers, table[:, 0], table[:, 1])


def read_utterances(
    folder: str | Path, word_class: str | None = None, characters: bool = False
) -> Utterances:
    """Reads utterances.jsonl of a scored decode folder, as `as_arrays`.

    Raises:
        InputError: not scored yet, or a broken line (file:line).
    """
    path = Path(folder) / "utterances.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no such file; run speechkit score on the folder first")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            row["words"], row["errors"], row["speaker"], row["utterance"], row["classes"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path}:{number}: not a line of speechkit score; score the folder again"
            ) from None
        rows.append(row)
    return as_arrays(rows, word_class, characters)


def build_result(
    decode: DecodeFolder, scores: Sequence[UtteranceScore], unit: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Everything result.json says, but for the number of scorings.

    Args:
        decode: where the hypotheses come from.
        scores: every utterance.
        unit: "word" or "phone".
        settings: of the scoring: normaliser, command, hash of the references ...
    """
    words = total(scores)
    result = {key: decode.record.get(key) for key in KEPT}
    result["units"] = decode.units()
    result |= {"unit": unit, "metric": NAMES[unit], "rate": words.rate, "counts": words.as_dict()}
    result["interval"] = _interval(interval([arrays(scores)]))
    if all(score.characters is not None for score in scores):
        characters = sum((score.characters for score in scores), Counts())
        result["cer"] = {"rate": characters.rate, "counts": characters.as_dict("characters")}
    wrong = sum(score.words.errors > 0 for score in scores)
    result["sentences"] = {"count": len(scores), "errors": wrong}
    speakers = by_speaker(scores)
    result["speakers"] = {name: _speaker(theirs) for name, theirs in speakers.items()}
    result["classes"] = add_classes(scores)
    result |= {key: decode.record.get(key) for key in KEPT_TOO}
    result["hypothesis_hash"] = hash_file(decode.text)
    result["scored"] = settings | {"environment": environment(), "date": _now()}
    return result


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _interval(found: Interval) -> dict[str, Any]:
    return {"low": found.low, "high": found.high, "level": 95, "drawn": found.drawn}


def _speaker(scores: Sequence[UtteranceScore]) -> dict[str, int]:
    wrong = sum(score.words.errors > 0 for score in scores)
    return {"utterances": len(scores), "wrong": wrong, **total(scores).as_dict()}


def count_scorings(log: Path, result: dict[str, Any]) -> int:
    """Adds a line to the log of scorings, which only grows, and counts.

    Returns:
        How many different hypotheses of this system, seed and decoding were scored on this set.
    """
    keys = ("set", "system", "seed", "how", "unit", "hypothesis_hash")
    line = {key: result[key] for key in keys} | {"rate": result["rate"], "date": result["scored"]["date"]}
    log.parent.mkdir(parents=True, exist_ok=True)
    # One write of one line, appended: jobs that run side by side do not mix.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (json.dumps(line, ensure_ascii=False) + "\n").encode())
    finally:
        os.close(descriptor)
    same = [other for other in read_scorings(log) if all(other.get(k) == line[k] for k in keys[:5])]
    return len({other.get("hypothesis_hash") for other in same})


def read_scorings(log: Path) -> list[dict[str, Any]]:
    """Lines of the log of scorings; InputError names a broken one."""
    rows = []
    for number, line in enumerate(log.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise InputError(f"{log}:{number}: not JSON; mend or remove the line") from None
    return rows


def write_result(folder: Path, result: dict[str, Any], scores: Sequence[UtteranceScore]) -> None:
    """Writes the files of a scored decode, each atomically; result.json comes last, so it says done."""
    write_jsonl(folder / "utterances.jsonl", _rows(scores))
    blocks = (f"{s.utterance} ({s.speaker}) {s.words.brackets()}\n{shown(s.pairs)}\n" for s in scores)
    write_text(folder / "aligned.txt", "\n".join(blocks))
    write_text(folder / "speakers.tsv", _speakers_table(result))
    rows = ["kind\tcount\treference\thypothesis"]
    for kind, counts in confusions(scores).items():
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        rows += [f"{kind}\t{count}\t{pair[0]}\t{pair[1]}" for pair, count in ordered]
    write_text(folder / "confusions.tsv", "\n".join(rows) + "\n")
    write_text(folder / "wer", "\n".join(kaldi_lines(result)) + "\n")
    write_json(folder / "result.json", result)


def _speakers_table(result: dict[str, Any]) -> str:
    rows = ["speaker\tutterances\twrong\twords\terrors\tins\tdel\tsub\trate"]
    everyone = {"utterances": result["sentences"]["count"], "wrong": result["sentences"]["errors"]}
    for name, counts in [*result["speakers"].items(), ("all", everyone | result["counts"])]:
        rate = f"{100 * counts['errors'] / counts['words']:.2f}" if counts["words"] else "-"
        keys = ("utterances", "wrong", "words", "errors", "ins", "del", "sub")
        rows.append("\t".join([name, *(str(counts[key]) for key in keys), rate]))
    return "\n".join(rows) + "\n"


def kaldi_lines(result: dict[str, Any]) -> list[str]:
    """`%WER x [ e / n, i ins, d del, s sub ]`, `%SER x [ e / n ]`, and what else was counted.

    That is `%CER ...`; where there are several languages `%PER-xx ...` of each, and their mean; and, of
    N-best lists, `%ORACLE x [ e / n, ... ] of N` and `%FUSION ...`.
    """
    lines = [f"%{result['metric']} {Counts.from_dict(result['counts']).line()}"]
    sentences = result["sentences"]
    rate = 100 * sentences["errors"] / sentences["count"]
    lines.append(f"%SER {rate:.2f} [ {sentences['errors']} / {sentences['count']} ]")
    if "cer" in result:
        lines.append(f"%CER {Counts.from_dict(result['cer']['counts'], 'characters').line()}")
    lines += language_lines(result["languages"], result["metric"]) if result.get("languages") else []
    if result.get("oracle"):
        best = result["oracle"]
        lines.append(f"%ORACLE {Counts.from_dict(best['counts']).line()} of {best['nbest']}")
    if "fusion" in result:
        lines.append(fusion_line(result["fusion"]))
    return lines


def read_result(path: Path) -> dict[str, Any]:
    """Reads a result.json; InputError when it is not one."""
    result = read_json(path)
    wanted = ("system", "seed", "set", "how", "counts", "rate", "metric", "scored")
    missing = [key for key in wanted if not isinstance(result, dict) or key not in result]
    if missing:
        raise InputError(f"{path}: not a result of speechkit score (no {', '.join(missing)}); score again")
    return result
