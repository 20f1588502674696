"""Options of a search chosen on a tuning set, by a grid that is written down."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from speechkit.data.kaldi_dir import read_data_dir
from speechkit.decoding.recognizer import Heads, Recognizer
from speechkit.errors import InputError
from speechkit.metrics.error_rate import cer, wer
from speechkit.search.hypothesis import Hypothesis


def tune(recognizer: Recognizer, folder: Path) -> dict:
    """Decodes a tuning set with every combination of the config's grid.

    The model runs once; each combination only searches, and of a search of two passes only the second
    where the first is as before. The first best combination wins.

    Returns:
        `{"set", "utterances", "trials": [{options..., "wer", "errors", "words"}], "chosen": {options}}`; with
        `cer` and `characters` where characters are counted.

    Raises:
        InputError: no transcripts, or an utterance that cannot be read.
    """
    references = read_data_dir(folder).text
    if not references:
        raise InputError(f"{folder}/text: no transcripts to tune on")
    normalise = recognizer.resources.assets.tokenizer.normaliser
    ids, heads = _encoded(recognizer, folder)
    late = getattr(recognizer.searcher, "second_pass_options", ())
    # Options of the second pass vary fastest.
    grid = dict(sorted(recognizer.config.grid.items(), key=lambda option: option[0] in late))
    by = recognizer.config.tune_by
    rate = {"words": "wer", "characters": "cer"}[by]
    wanted, trials, search = [normalise(references[utterance]) for utterance in ids], [], _Search()
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values))
        trial = recognizer.with_search(**options)
        text = trial.searcher.text
        heard = [normalise(text(nbest[0]) if nbest else "") for nbest in search(trial, heads)]
        counts = wer(wanted, heard) if by == "words" else cer(wanted, heard, spaces=False)
        trials.append({**options, rate: round(counts.rate, 4), **counts.as_dict(by)})
        shown = " ".join(f"{key}={value:g}" for key, value in options.items())
        print(f"speechkit decode: tuning on {folder}: {shown}: {counts.line()}", file=sys.stderr, flush=True)
    best = min(trials, key=lambda row: row[rate])
    return {
        "set": str(folder),
        "utterances": len(ids),
        "trials": trials,
        "chosen": {key: best[key] for key in grid},
    }


def _encoded(recognizer: Recognizer, folder: Path) -> tuple[list[str], list[Heads]]:
    """The utterances that are tuned on, and the model's heads for them, batch by batch."""
    manifest, batches = recognizer.batches(folder)
    keep = set(_spread([manifest.ids[i] for i in range(len(manifest))], recognizer.config.tune_utterances))
    ids, heads = [], []
    for batch in batches:
        rows = [i for i, utterance in enumerate(batch.ids) if utterance in keep]
        if rows:
            encoded = recognizer.encode(batch)
            recognizer.check_head(encoded)
            ids += [batch.ids[i] for i in rows]
            heads.append({name: (values[rows], lengths[rows]) for name, (values, lengths) in encoded.items()})
    return ids, heads


class _Search:
    """Searches with one trial after the other; keeps the last trial's first pass."""

    def __init__(self) -> None:
        self.key: object = None
        self.found: list = []

    def __call__(self, trial: Recognizer, heads: list[Heads]) -> Iterator[list[Hypothesis]]:
        searcher = trial.searcher
        if not hasattr(searcher, "first_pass"):
            return itertools.chain.from_iterable(map(trial.search, heads))
        if searcher.first_pass_key != self.key:
            self.key, self.found = searcher.first_pass_key, [searcher.first_pass(batch) for batch in heads]
        return itertools.chain.from_iterable(map(searcher.second_pass, self.found))


def _spread(ids: list[str], count: int | None) -> list[str]:
    """`count` ids evenly spread over the sorted list, so that speakers are represented alike."""
    ids = sorted(ids)
    if count is None or count >= len(ids):
        return ids
    return [ids[i * len(ids) // count] for i in range(count)]
