"""What a search may need beside a model's outputs; files are read once, on first use."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from speechkit.errors import InputError
from speechkit.lm.arpa import read_arpa
from speechkit.lm.masked import MaskedLM
from speechkit.lm.neural import NeuralLm
from speechkit.lm.ngram import NgramLM
from speechkit.models.assets import Assets
from speechkit.search.hypothesis import Hypothesis
from speechkit.search.lexicon import Lexicon, read_lexicon
from speechkit.text.reading import read_utf8


@dataclass
class Resources:
    """The model, its assets, and the files given on the command line."""

    model: nn.Module
    assets: Assets
    lexicon_path: Path | None = None
    lm_path: Path | None = None
    bert_path: Path | None = None

    @functools.cached_property
    def lexicon(self) -> Lexicon | None:
        """Words of a list (one a line, spelt by the tokenizer), or words with their spellings."""
        path = self.lexicon_path
        if path is None:
            return None
        lines = [line for line in read_utf8(path).split("\n") if line.strip()]
        if all(len(line.split()) == 1 for line in lines):
            lexicon = Lexicon.from_words((line.strip() for line in lines), self.assets.tokenizer)
        else:
            lexicon = read_lexicon(path, self.assets.tokenizer.vocab)
        if lexicon.dropped:
            shown = " ".join(lexicon.dropped[:5])
            count = len(lexicon.dropped)
            print(
                f"{path}: {count} words need tokens outside the vocabulary, left out: {shown}",
                file=sys.stderr,
            )
        return lexicon

    @functools.cached_property
    def lm(self) -> NgramLM | None:
        """The n-gram model; InputError where a neural one was given."""
        if self.lm_path is not None and self.lm_path.is_dir():
            raise InputError(
                f"--lm {self.lm_path}: a folder; this search takes an n-gram model in ARPA format "
                "(attention_beam and transducer_beam take neural ones too)"
            )
        return read_arpa(self.lm_path) if self.lm_path is not None else None

    @functools.cached_property
    def neural_lm(self) -> NeuralLm | None:
        """The neural language model, on the model's device, where `--lm` is the folder of one.

        Raises:
            InputError: a model of another kind, or of other tokens than the recogniser's.
        """
        if self.lm_path is None or not self.lm_path.is_dir():
            return None
        from speechkit.train.checkpoint import load_model

        model, run, assets = load_model(self.lm_path, next(self.model.parameters()).device)
        if not hasattr(model, "for_search"):
            raise InputError(
                f"--lm {self.lm_path}: a model of kind {run.model.name}, not causal_lm, nor an ARPA file"
            )
        if assets.tokenizer.vocab != self.assets.tokenizer.vocab:
            raise InputError(
                f"--lm {self.lm_path}: its {len(assets.tokenizer)} tokens are not the recogniser's "
                f"{len(self.assets.tokenizer)}; train it with the same --tokenizer"
            )
        return model.for_search()

    def token_lm(self) -> tuple[NgramLM | None, NeuralLm | None]:
        """The language model of tokens, of either kind; the other is None, or both where there is none."""
        neural = self.neural_lm
        return (None, neural) if neural is not None else (self.lm, None)

    @functools.cached_property
    def masked_lm(self) -> MaskedLM | None:
        """The BERT that scores texts, on the model's device."""
        if self.bert_path is None:
            return None
        from speechkit.integrations.bert import load_bert

        bert, vocab = load_bert(self.bert_path)
        return MaskedLM(bert.to(next(self.model.parameters()).device), vocab)

    def refuse_bert(self, search: str) -> None:
        """Raises InputError when a BERT was given to a search that would not ask it."""
        if self.bert_path is not None:
            raise InputError(f"the search {search} takes no --bert; use search.name=rescore")

    def forget(self) -> None:
        """Empties what is remembered of earlier texts, so that decoding can be timed."""
        if "masked_lm" in self.__dict__ and self.masked_lm is not None:
            self.masked_lm.cache.clear()


class Searcher(Protocol):
    """A search that is ready to run."""

    def __call__(self, heads: dict[str, tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
        """N-best hypotheses, best first, for each utterance of a batch of encoded heads."""

    def text(self, hypothesis: Hypothesis) -> str:
        """The hypothesis as written text."""

    # Optional: `first_pass(heads)` and `second_pass(found)`, where calling is one after the other, with
    # `first_pass_key` and `second_pass_options`: tuning runs the first only where it differs (rescore.py).
