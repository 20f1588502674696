"""Options of a search chosen on a tuning set, by a grid that is written down."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from speechkit.data.kaldi_dir import read_data_dir
from speechkit.decoding.recognizer import Recognizer
from speechkit.errors import InputError
from speechkit.metrics.error_rate import wer


def tune(recognizer: Recognizer, folder: Path) -> dict:
    """Decodes a tuning set with every combination of the config's grid.

    The model runs once; each combination only searches. The first best combination wins.

    Returns:
        `{"set", "utterances", "trials": [{options..., "wer", "errors", "words"}], "chosen": {options}}`.

    Raises:
        InputError: no transcripts, or an utterance that cannot be read.
    """
    references = read_data_dir(folder).text
    if not references:
        raise InputError(f"{folder}/text: no transcripts to tune on")
    normalise = recognizer.resources.assets.tokenizer.normaliser
    manifest, batches = recognizer.batches(folder)
    limit = recognizer.config.tune_utterances
    heads = [(batch.ids, recognizer.encode(batch)) for batch in batches]
    keep = set(_spread([manifest.ids[i] for i in range(len(manifest))], limit))
    grid, trials = recognizer.config.grid, []
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values))
        trial = recognizer.with_search(**options)
        pairs = []
        for ids, encoded in heads:
            rows = [i for i, utterance in enumerate(ids) if utterance in keep]
            if not rows:
                continue
            chosen = {name: (v[rows], n[rows]) for name, (v, n) in encoded.items()}
            for i, nbest in zip(rows, trial.search(chosen)):
                text = trial.searcher.text(nbest[0]) if nbest else ""
                pairs.append((normalise(references[ids[i]]), normalise(text)))
        counts = wer([reference for reference, _ in pairs], [hypothesis for _, hypothesis in pairs])
        trials.append({**options, "wer": round(counts.rate, 4), **counts.as_dict()})
        shown = " ".join(f"{key}={value:g}" for key, value in options.items())
        print(f"speechkit decode: tuning on {folder}: {shown}: {counts.line()}", file=sys.stderr, flush=True)
    best = min(trials, key=lambda row: row["wer"])
    return {
        "set": str(folder),
        "utterances": len(keep),
        "trials": trials,
        "chosen": {key: best[key] for key in grid},
    }


def _spread(ids: list[str], count: int | None) -> list[str]:
    """`count` ids evenly spread over the sorted list, so that speakers are represented alike."""
    ids = sorted(ids)
    if count is None or count >= len(ids):
        return ids
    return [ids[i * len(ids) // count] for i in range(count)]
