"""Decoding within a language: of a vocabulary of `(xx)p`, only symbols of the utterance's language."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.text.phone_tags import tag_of


class LanguageMask:
    """Makes the symbols of other languages impossible; blank and symbols without a tag stay.

    Args:
        vocab: token of every id.

    Raises:
        InputError: no token has a tag.
    """

    def __init__(self, vocab: Sequence[str]) -> None:
        tags = [tag_of(token) for token in vocab]
        self.languages = sorted({tag for tag in tags if tag is not None})
        if not self.languages:
            raise InputError(
                "search.own_language: no token of the model is tagged as (xx)p; it was not trained on "
                "phones of a separate vocabulary (speechkit phonemize --vocabulary separate)"
            )
        self.foreign = {
            code: torch.tensor([tag is not None and tag != code for tag in tags]) for code in self.languages
        }

    def __call__(self, log_probs: Tensor, languages: Sequence[str] | None) -> Tensor:
        """Log probabilities with -inf for other languages' symbols.

        They are not normalised again: in each frame that would add the same number to every hypothesis.

        Args:
            log_probs: `(B, T, V)`.
            languages: a code for each utterance, as in utt2lang; None where nobody knows.

        Raises:
            InputError: an utterance of an unknown language.
        """
        if languages is None or not all(languages):
            raise InputError("search.own_language: the data directory must say the languages, in utt2lang")
        unknown = sorted(set(languages) - set(self.languages))
        if unknown:
            raise InputError(
                f"search.own_language: the model has no phones of language '{unknown[0]}' of utt2lang, "
                f"only of {', '.join(self.languages)}"
            )
        foreign = torch.stack([self.foreign[code] for code in languages]).to(log_probs.device)
        return log_probs.masked_fill(foreign[:, None], -torch.inf)
