#!/usr/bin/env python3
"""Stage 8: the tables of RESULTS.md that join languages, seeds and settings, and the pictures of codebooks.

    local/tables.py exp

Writes exp/tables/table_*.json from the scored decodes and codebook.json files below exp: the phone error rate
of each language, the orderings with a paired test each, the settings of UniSpeech, and codewords against
phones. Systems without results are left out.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from speechkit.errors import InputError
from speechkit.files import atomic_write, read_json, write_json
from speechkit.metrics.groups import Row, gather, mean_sd
from speechkit.metrics.set_section import verdict
from speechkit.metrics.significance import Utterances, paired_test

TARGETS = "ky", "nl"
MODELS = {
    "unispeech": "UniSpeech",
    "unispeech_r0": "UniSpeech, r = 0",
    "ctc_transfer": "CTC-Transfer",
    "xlsr": "XLSR",
    "unispeech_plus": "UniSpeech+",
    "xlsr_plus": "XLSR+",
}
KINDS = {
    "one_to_one": "{model}_en_{target}",
    "many_to_one": "{model}_four_{target}",
    "many_to_many_shared": "{model}_four_shared",
    "many_to_many_separate": "{model}_four_separate",
}
LOWER = [  # as published, the first has the lower phone error rate
    ("unispeech", "unispeech_r0"),
    ("unispeech", "ctc_transfer"),
    ("unispeech", "xlsr"),
    ("unispeech_plus", "unispeech"),
    ("xlsr_plus", "xlsr"),
]
SETTINGS = {  # system, and the published mean over eight languages
    "r = 0.5, alpha = 0.5, p = 0.05": ("unispeech", 14.2),
    "r = 0": ("unispeech_r0", 15.3),
    "r = 0.3": ("r30", 14.6),
    "r = 0.7": ("r70", 14.5),
    "alpha = 0.3": ("alpha30", 15.0),
    "alpha = 0.7": ("alpha70", 14.3),
    "p = 0.065": ("mask65", 14.2),
    "p = 0.075": ("mask75", 14.2),
}
CODES = {
    "codewords in use": "active",
    "of them seen 10 times or more": "active_often",
    "entropy, nats": "entropy",
    "entropy by frequency": "entropy_weighted",
    "entropy of those seen 10 times or more": "entropy_often",
    "phone purity": "phone_purity",
}
MORE = "active", "active_often"
"""Of these UniSpeech has more than XLSR, as published, of entropies less."""

Rows = dict[tuple[str, str, str], Row]
"""System, language and way of decoding -> results in phones."""


def read_rows(exp: Path) -> Rows:
    """The phone error rates of the targets' test sets."""
    rows = [row for row in gather(exp) if row.metric == "PER"]
    return {(row.system, row.set.split("_")[0], row.how): row for row in rows}


def of(rows: Rows, pattern: str, model: str, how: str = "greedy") -> dict[str, Row]:
    """Language -> results of a model in a setting."""
    systems = {target: pattern.format(model=model, target=target) for target in TARGETS}
    return {t: rows[name, t, how] for t, name in systems.items() if (name, t, how) in rows}


def rates(found: dict[str, Row]) -> dict[str, Any]:
    """The cells of a line: error rates of the languages and, over the seeds that all have, their mean."""
    cells: dict[str, Any] = {target: mean_sd(row.rates()) for target, row in found.items()}
    seeds = set.intersection(*(set(row.seeds) for row in found.values()))
    if len(found) > 1:
        shared = [only(row, seeds).rates() for row in found.values()]
        cells["mean"] = mean_sd([statistics.fmean(each) for each in zip(*shared)])
    return {**cells, "seeds": len(seeds)}


def per_tables(rows: Rows) -> dict[str, dict]:
    """A table for each setting."""
    tables = {}
    for kind, pattern in KINDS.items():
        lines = {title: of(rows, pattern, model) for model, title in MODELS.items()}
        own = {f"{title}, own language": of(rows, pattern, m, "own_language") for m, title in MODELS.items()}
        scratch = {"from scratch": of(rows, "scratch_{target}", "")} if kind.endswith("one") else {}
        tables[kind] = {name: rates(row) for name, row in {**lines, **own, **scratch}.items() if row}
    return tables


def orderings(rows: Rows) -> dict[str, dict]:
    """A line for each published ordering: the difference in each language and in both, with a paired test."""
    table = {}
    for kind, pattern in KINDS.items():
        xlsr_first = ("xlsr", "ctc_transfer")  # the other way round from English alone
        last = xlsr_first[::-1] if kind == "one_to_one" else xlsr_first
        for first, second in [*LOWER, last]:
            title = f"{MODELS[first]} < {MODELS[second]}, {kind.replace('_', ' ')}"
            table[title] = differences(of(rows, pattern, first), of(rows, pattern, second))
    for model, title in MODELS.items():
        many, one = (of(rows, KINDS[kind], model) for kind in ("many_to_one", "one_to_one"))
        table[f"{title}: many to one < one to one"] = differences(many, one)
    return {title: line for title, line in table.items() if line}


def differences(first: dict[str, Row], second: dict[str, Row]) -> dict[str, str]:
    """First less second, on seeds that both have; `both` pools the languages, `holds` is of all there is."""
    cells, sides = {}, ([], [])
    for target in sorted(first.keys() & second.keys()):
        if seeds := set(first[target].seeds) & set(second[target].seeds):
            pair = [only(row, seeds).utterances() for row in (first[target], second[target])]
            cells[target] = verdict(paired_test(*pair))
            for side, decodes in zip(sides, pair):
                side.append(decodes)
    if not cells:
        return {}
    tested = paired_test(*([join(each) for each in zip(*side)] for side in sides))
    if len(cells) > 1:
        cells["both"] = verdict(tested)
    word = ("yes" if tested.delta < 0 else "no") if tested.distinguishable else "cannot be told"
    return {**cells, "holds": word}


def only(row: Row, seeds: set[int]) -> Row:
    """The runs of these seeds."""
    kept = [number for number, seed in enumerate(row.seeds) if seed in seeds]
    return replace(row, results=[row.results[n] for n in kept], folders=[row.folders[n] for n in kept])


def join(decodes: tuple[Utterances, ...]) -> Utterances:
    """Several languages as one set."""
    ids, speakers = (tuple(x for d in decodes for x in getattr(d, key)) for key in ("ids", "speakers"))
    words, errors = (np.concatenate([getattr(d, key) for d in decodes]) for key in ("words", "errors"))
    return Utterances(ids, speakers, words, errors)


def settings(rows: Rows) -> dict[str, dict]:
    """Seed 1 of UniSpeech from English with other values of r, alpha and p."""
    table = {}
    for title, (model, published) in SETTINGS.items():
        if found := of(rows, KINDS["one_to_one"], model):
            cells = rates({target: only(row, {1}) for target, row in found.items()})
            table[title] = {**cells, "published, mean of 8": published}
    return table


def read_codes(exp: Path) -> dict[tuple[str, str], dict[int, dict]]:
    """Model and sources -> codebook.json of each seed; copies a picture of the first seed of each."""
    found: dict[tuple[str, str], dict[int, dict]] = {}
    for path in sorted(exp.glob("codes_*/seed*/codebook.json")):
        name = path.parents[1].name
        model, _, sources = name.removeprefix("codes_").rpartition("_")
        seeds = found.setdefault((model, sources), {})
        seeds[int(path.parent.name.removeprefix("seed"))] = read_json(path)
        if len(seeds) == 1:
            with (
                open(path.with_suffix(".png"), "rb") as source,
                atomic_write(exp / "tables" / f"{name}.png", "wb") as copy,
            ):
                shutil.copyfileobj(source, copy)
    return found


def codewords(found: dict[tuple[str, str], dict[int, dict]]) -> dict[str, dict]:
    """A line for each pre-trained model with a codebook."""
    table = {}
    for (model, sources), seeds in found.items():
        means = {title: mean_sd(known(seeds, key)) for title, key in CODES.items()}
        frames = next(iter(seeds.values()))["frames"]
        table[f"{MODELS[model]}, {sources}"] = {**means, "seeds": len(seeds), "frames": frames}
    return table


def codeword_orderings(found: dict[tuple[str, str], dict[int, dict]]) -> dict[str, dict]:
    """UniSpeech less each other model, on seeds that both have."""
    table = {}
    for (model, sources), seeds in found.items():
        own = found.get(("unispeech", sources), {})
        pairs = [(own[seed], seeds[seed]) for seed in own.keys() & seeds.keys()]
        if model != "unispeech" and pairs:
            cells = {title: agreement(pairs, key) for title, key in CODES.items() if key != "phone_purity"}
            table[f"UniSpeech less {MODELS[model]}, {sources}"] = cells
    return table


def agreement(pairs: list[tuple[dict, dict]], key: str) -> str:
    """`+12.00, 3 of 3 seeds`: the mean difference, and the seeds in which it is as published."""
    both = [(one[key], other[key]) for one, other in pairs if None not in (one[key], other[key])]
    if not both:
        return "-"
    found = [one - other for one, other in both]
    right = sum((value > 0) if key in MORE else (value < 0) for value in found)
    return f"{statistics.fmean(found):+.2f}, {right} of {len(found)} seeds"


def known(seeds: dict[int, dict], key: str) -> list[float]:
    """The values of the seeds that have one."""
    return [one[key] for one in seeds.values() if one[key] is not None]


def main() -> None:
    """Writes all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("exp", type=Path)
    exp = parser.parse_args().exp
    rows, codes = read_rows(exp), read_codes(exp)
    tables = {**per_tables(rows), "orderings": orderings(rows), "settings": settings(rows)}
    tables |= {"codewords": codewords(codes), "codeword_orderings": codeword_orderings(codes)}
    for number, (name, table) in enumerate(tables.items(), start=1):
        path = exp / "tables" / f"table_{number}_{name}.json"
        path.unlink(missing_ok=True)
        if table:
            write_json(path, table)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/tables.py: error: {error}")
