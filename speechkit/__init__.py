"""SpeechKit: a recipe toolkit for low-resource speech recognition.

Dimension letters used in every docstring: B batch, S samples, T frames, U target tokens, D model
dimension, F feature bins, V vocabulary, H heads, C channels, K hypotheses in a beam.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from speechkit.decoding.recognizer import Recognizer

__version__ = "0.1.0"


def load(exp: str | Path, **options: Any) -> Recognizer:
    """Opens a trained experiment for recognition: `load("exp/ctc/seed1").transcribe("a.wav")`.

    Args:
        exp: experiment folder, or one of its checkpoint folders.
        **options: config, lexicon, lm, bert and device of `speechkit.decoding.recognizer.Recognizer.load`.

    Raises:
        InputError: anything missing, damaged, or not fitting together.
    """
    from speechkit.decoding.recognizer import Recognizer

    return Recognizer.load(exp, **options)
