"""SpeechKit: a recipe toolkit for low-resource speech recognition.

Dimension letters used in every docstring: B batch, S samples, T frames, U target tokens, D model
dimension, F feature bins, V vocabulary, H heads, C channels, K hypotheses in a beam.
"""

__version__ = "0.1.0"


def load(exp, **options):
    """Opens a trained experiment for recognition; see `speechkit.decoding.recognizer.Recognizer`."""
    from speechkit.decoding.recognizer import Recognizer

    return Recognizer.load(exp, **options)
