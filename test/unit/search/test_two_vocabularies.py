"""What CTC said in BERT's pieces: ids, confidences, the clock of the frames, and scores of words."""

import math

import pytest
import torch
from tiny_linguistic import make_assets

from speechkit.search.two_vocabularies import TwoVocabularies

BEST = 0.9


def path(units, pieces, best=BEST):
    """Log-probabilities `(1, T, V)` in which each frame's piece (None: blank) has most of the probability."""
    probs = torch.full((1, len(pieces), units.ctc_size), (1 - best) / (units.ctc_size - 1))
    for frame, piece in enumerate(pieces):
        probs[0, frame, 0 if piece is None else units.tokenizer.vocab.index(piece)] = best
    return probs.log(), torch.tensor([len(pieces)])


def make(tmp_path, kind):
    assets = make_assets(tmp_path, shared=kind == "shared")
    return TwoVocabularies(assets.tokenizer, assets.bert.vocab, kind)


SPELT = [*"tthee", None, "▁", None, *"d", None, *"oogg", None]
"""t h e at frames 0 to 4, a space at 6, d o g at 8 to 13."""


@pytest.mark.parametrize("kind", ["retokenised", "words"])
def test_words_have_the_middle_of_their_frames(tmp_path, kind):
    units = make(tmp_path, kind)
    said = units.recognised(*path(units, SPELT))
    assert units.vocab.decode(said.tokens.values[0].tolist()) == "the dog"
    # "the" lies in frames 0 to 4, "dog" in 8 to 13; the search counts the blank after a word to it.
    first, second = (2, 10.5) if kind == "retokenised" else (2.5, 11)
    expected = [max(0.0, min(1.0, (t - first) / (second - first))) for t in range(len(SPELT))]
    torch.testing.assert_close(said.clock[0], torch.tensor(expected, dtype=torch.float64))


def test_a_word_is_as_sure_as_its_pieces(tmp_path):
    units = make(tmp_path, "retokenised")
    sure = units.recognised(*path(units, SPELT)).confidences[0]
    torch.testing.assert_close(sure, torch.tensor([3 * math.log(BEST)] * 2))


def test_what_bert_cannot_read_is_not_sure_at_all(tmp_path):
    units = make(tmp_path, "retokenised")
    said = units.recognised(*path(units, [*"the", "▁", *"dot"]))
    assert said.tokens.values[0].tolist() == [*units.vocab.encode("the"), 0]
    assert said.confidences[0, 1] == -math.inf and said.confidences[0, 0] > -1
    assert said.scores is None


def test_shared_pieces_keep_their_own_confidence_and_frame(tmp_path):
    units = make(tmp_path, "shared")
    said = units.recognised(*path(units, [None, "the", "the", None, "dog", None]))
    assert units.vocab.decode(said.tokens.values[0].tolist()) == "the dog"
    torch.testing.assert_close(said.confidences[0], torch.tensor([math.log(BEST)] * 2))
    torch.testing.assert_close(said.clock[0], torch.tensor([0, 0, 0.2, 0.6, 1, 1], dtype=torch.float64))


def test_a_word_that_is_misspelt_is_found_by_search(tmp_path):
    """The best path says `the dot`; of BERT's words `dog` is the most probable."""
    units = make(tmp_path, "words")
    log_probs, lengths = path(units, [*"the", "▁", *"dot"])
    said = units.recognised(log_probs, lengths)
    assert units.vocab.decode(said.tokens.values[0].tolist()) == "the dog"
    assert said.scores.shape == (1, 2, len(units.vocab))
    the, dog, cat = (units.vocab.encode(word)[0] for word in ("the", "dog", "cat"))
    assert said.scores[0, 0].argmax() == the and said.scores[0, 1].argmax() == dog
    assert said.scores[0, 1, cat] < said.scores[0, 1, dog] - 4
    assert said.confidences[0, 0] > said.confidences[0, 1]


@pytest.mark.parametrize("kind", ["shared", "retokenised", "words"])
def test_nothing_heard_is_nothing_said(tmp_path, kind):
    units = make(tmp_path, kind)
    said = units.recognised(*path(units, [None, None, None]))
    assert said.tokens.lengths.tolist() == [0] and said.confidences.shape == (1, 0)
    assert said.clock.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", ["shared", "retokenised", "words"])
def test_a_batch_says_what_each_says_alone(tmp_path, kind):
    units = make(tmp_path, kind)
    generator = torch.Generator().manual_seed(4)
    log_probs = (3 * torch.randn(3, 14, units.ctc_size, generator=generator)).log_softmax(-1)
    lengths = torch.tensor([14, 9, 3])
    said = units.recognised(log_probs, lengths)
    for row, frames in enumerate(lengths.tolist()):
        one = units.recognised(log_probs[row : row + 1, :frames], lengths[row : row + 1])
        n = int(one.tokens.lengths)
        assert said.tokens.lengths[row] == n
        assert said.tokens.values[row, :n].tolist() == one.tokens.values[0].tolist()
        torch.testing.assert_close(said.confidences[row, :n], one.confidences[0])
        torch.testing.assert_close(said.clock[row, :frames], one.clock[0])
        if one.scores is not None:
            torch.testing.assert_close(said.scores[row, :n], one.scores[0])
