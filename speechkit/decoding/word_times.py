"""When each word was said, in NIST's CTM format: `utterance channel start duration word`, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from speechkit.decoding.recognizer import Recognizer
from speechkit.files import write_text
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.word_spans import words_of

LONG = 1_000_000
"""Samples or features, enough for the ratio to the frames that a model makes of them to be exact."""


def seconds_per_frame(recognizer: Recognizer) -> float:
    """Seconds from one of the model's frames to the next."""
    model, extractor = recognizer.model, recognizer.extractor
    one, two = model.output_lengths(torch.tensor([LONG, 2 * LONG])).tolist()
    samples = extractor.shift if "features" in model.inputs else 1
    return round(LONG / (two - one)) * samples / extractor.rate


def ctm_lines(utterance: str, best: Hypothesis, recognizer: Recognizer, seconds: float) -> list[str] | None:
    """A line for each word of a hypothesis; None where it does not say when its tokens came.

    A word begins with the first frame of its first token, and ends with the last of its last; a search that
    knows one frame for each token, as those of transducers do, knows when a word's last token came, and not
    how long it is.
    """
    if len(best.spans) != len(best.tokens):
        return None
    words = words_of(best.spans, recognizer.resources.assets.tokenizer)
    if [word.text for word in words] != recognizer.searcher.text(best).split():
        return None  # a lexicon's words, which these tokens do not spell
    return [
        f"{utterance} 1 {word.start * seconds:.3f} {(word.end - word.start) * seconds:.3f} {word.text}\n"
        for word in words
    ]


def write_ctm(path: Path, found: Mapping[str, list[Hypothesis]], recognizer: Recognizer) -> None:
    """Writes the best hypotheses, if all of them say when their tokens came.

    Args:
        path: the file.
        found: N-best list of each utterance.
        recognizer: that found them.
    """
    if not any(nbest and nbest[0].spans for nbest in found.values()):
        return
    seconds, lines = seconds_per_frame(recognizer), []
    for utterance in sorted(found):
        rows = ctm_lines(utterance, found[utterance][0], recognizer, seconds) if found[utterance] else []
        if rows is None:
            return
        lines += rows
    write_text(path, "".join(lines))
