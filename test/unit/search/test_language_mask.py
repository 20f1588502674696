"""Searches that find only the phones of an utterance's language."""

import pytest
import torch

from speechkit.errors import InputError
from speechkit.search.ctc_beam import CtcBeam, CtcBeamConfig
from speechkit.search.greedy import ctc_greedy
from speechkit.search.language_mask import LanguageMask

VOCAB = ["<blank>", "<unk>", "(en)a", "(en)b", "(es)a", "sil", "<sos/eos>"]


def test_only_other_languages_are_impossible():
    log_probs = torch.randn(3, 5, 7).log_softmax(-1)
    masked = LanguageMask(VOCAB)(log_probs, ["en", "es", "en"])
    gone = masked.isinf()
    assert gone[0].any(0).tolist() == gone[2].all(0).tolist() == [False] * 4 + [True, False, False]
    assert gone[1].all(0).tolist() == [False, False, True, True, False, False, False]
    assert torch.equal(masked[~gone], log_probs[~gone])


def test_both_searches_stay_within_the_language():
    # The other language's `a` is the best of all frames but the last.
    log_probs = torch.tensor(
        [[1, 0, 3, 0, 4, 0, 0.0], [1, 0, 3, 0, 4, 0, 0], [9, 0, 3, 0, 4, 0, 0]]
    ).log_softmax(-1)
    log_probs, lengths = log_probs.expand(2, 3, 7), torch.tensor([3, 3])
    beam = CtcBeam(CtcBeamConfig(beam=8), VOCAB)
    assert ctc_greedy(log_probs, lengths) == [[4], [4]]
    masked = LanguageMask(VOCAB)(log_probs, ["en", "es"])
    assert ctc_greedy(masked, lengths) == [[2], [4]]
    assert [found[0].tokens for found in beam(masked, lengths)] == [[2], [4]]
    every = CtcBeam(CtcBeamConfig(beam=8, nbest=8), VOCAB)(masked, lengths)
    assert all(4 not in each.tokens for each in every[0]) and not {2, 3} & {
        t for e in every[1] for t in e.tokens
    }


def test_what_cannot_be_masked():
    with pytest.raises(InputError, match=r"no token of the model is tagged as \(xx\)p"):
        LanguageMask(["<blank>", "a"])
    mask, log_probs = LanguageMask(VOCAB), torch.zeros(2, 1, 7)
    with pytest.raises(InputError, match="no phones of language 'fr' of utt2lang, only of en, es"):
        mask(log_probs, ["en", "fr"])
    for languages in (None, ["en", ""]):
        with pytest.raises(InputError, match="must say the languages, in utt2lang"):
            mask(log_probs, languages)
