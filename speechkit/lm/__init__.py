"""N-gram language models: training, ARPA files, and scoring of many hypotheses at once."""

from speechkit.lm.arpa import read_arpa, write_arpa
from speechkit.lm.kneser_ney import train_ngram
from speechkit.lm.ngram import NgramLM

__all__ = ["NgramLM", "read_arpa", "train_ngram", "write_arpa"]
