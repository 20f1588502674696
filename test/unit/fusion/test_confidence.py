"""Confidences of both outputs against loops over the best path, and the choice between them."""

import math

import pytest
import torch

from speechkit.config import from_dict
from speechkit.errors import ProblemsError
from speechkit.fusion.confidence import (
    Config,
    by_word,
    ce_scores,
    ctc_scores,
    prefers_ce,
    sequence_confidences,
)
from speechkit.fusion.word_numbers import word_numbers
from speechkit.search.greedy import ctc_greedy_spans

MEASURES = ["token_mean", "path_mean", "entropy"]


def posteriors(*rows):
    """Log-probabilities `(T, V)` of rows of probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def path(*frames, vocab=4):
    """`(1, T, V)`: each frame is (token, probability), the rest spread evenly; and the lengths."""
    rows = []
    for token, p in frames:
        rows.append([(1 - p) / (vocab - 1)] * vocab)
        rows[-1][token] = p
    return posteriors(*rows)[None], torch.tensor([len(frames)])


def random_outputs(batch=6, frames=14, vocab=5, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, frames, vocab, generator=generator, dtype=torch.float64) * scale
    lengths = torch.randint(0, frames + 1, (batch,), generator=generator)
    lengths[0], lengths[-1] = frames, 0
    return values.log_softmax(-1), lengths


def entropy(log_probs):
    p = log_probs.exp()
    return float((p * log_probs).sum() / math.log(len(p)))


# ---- the definitions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("measure", MEASURES)
def test_scores_of_ctc_are_those_of_a_loop_over_its_runs(measure, temperature):
    log_probs, lengths = random_outputs()
    out = ctc_scores(log_probs, lengths, measure, temperature)
    warm = (log_probs / temperature).log_softmax(-1)
    spans = ctc_greedy_spans(log_probs, lengths)
    assert any(a.token == b.token for row in spans for a, b in zip(row, row[1:]))  # repeats are there
    for row in range(len(lengths)):
        n = int(lengths[row])
        if measure == "path_mean":
            expected = [float(warm[row, t].max()) for t in range(n)]
        elif measure == "token_mean":
            expected = [float(warm[row, s.start : s.end, s.token].max()) for s in spans[row]]
        else:
            expected = [max(entropy(warm[row, t]) for t in range(s.start, s.end)) for s in spans[row]]
        assert out.values[row, : len(expected)].tolist() == pytest.approx(expected)
        assert int(out.lengths[row]) == len(expected)
        assert not out.values[row, len(expected) :].any()
        if expected:
            assert float(out.mean()[row]) == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize("measure", MEASURES)
def test_scores_of_the_cross_entropy_are_those_of_its_positions(measure):
    log_probs, lengths = random_outputs(seed=1)
    out = ce_scores(log_probs, lengths, measure, 0.7)
    warm = (log_probs / 0.7).log_softmax(-1)
    for row, n in enumerate(lengths.tolist()):
        each = [entropy(x) if measure == "entropy" else float(x.max()) for x in warm[row, :n]]
        assert out.values[row, :n].tolist() == pytest.approx(each)
        mean = sum(each) / n if n else -math.inf
        assert float(out.mean()[row]) == pytest.approx(mean)


def test_certain_outputs_score_nothing_less_and_even_ones_the_minimum():
    sure = torch.tensor([[[0.0, -math.inf, -math.inf, -math.inf]]])
    even = torch.full((1, 1, 4), 0.25).log()
    for measure in MEASURES:
        assert float(ce_scores(sure, torch.tensor([1]), measure).mean()) == 0
    assert float(ce_scores(even, torch.tensor([1])).mean()) == pytest.approx(math.log(0.25))
    assert float(ce_scores(even, torch.tensor([1]), "entropy").mean()) == pytest.approx(-1)


@pytest.mark.parametrize("measure", MEASURES)
def test_padding_changes_nothing(measure):
    for scores in (ctc_scores, ce_scores):
        log_probs, lengths = random_outputs(seed=2)
        whole = scores(log_probs, lengths, measure).mean()
        for row, n in enumerate(lengths.tolist()):
            alone = scores(log_probs[row, None, :n], lengths[row, None], measure).mean()
            torch.testing.assert_close(alone[0], whole[row], rtol=1e-12, atol=0)
            log_probs[row, n:] = torch.nan
        assert torch.equal(scores(log_probs, lengths, measure).mean(), whole)


def test_frames_of_blank_do_not_make_ctc_surer():
    frames = [(1, 0.6), (0, 0.7), (2, 0.8), (2, 0.9)]
    blanks = [(0, 0.999)] * 20
    for measure in ("token_mean", "entropy"):
        short, long = (ctc_scores(*path(*f), measure).mean() for f in (frames, frames + blanks))
        torch.testing.assert_close(short, long, rtol=0, atol=0)
    assert float(ctc_scores(*path(*frames)).mean()) == pytest.approx((math.log(0.6) + math.log(0.9)) / 2)
    assert (
        ctc_scores(*path(*frames, *blanks), "path_mean").mean()
        > ctc_scores(*path(*frames), "path_mean").mean()
    )


def test_silence_is_as_sure_as_its_least_sure_frame():
    quiet = ctc_scores(*path((0, 0.9), (0, 0.6), (0, 0.99)))
    assert int(quiet.lengths) == 0 and float(quiet.mean()) == pytest.approx(math.log(0.6))
    none = ctc_scores(torch.zeros(1, 0, 4), torch.tensor([0]))
    assert float(none.mean()) == -math.inf


def test_another_blank():
    log_probs, lengths = random_outputs(seed=3)
    turned = log_probs.roll(2, dims=-1)
    one, other = ctc_scores(log_probs, lengths), ctc_scores(turned, lengths, blank=2)
    assert torch.equal(one.values, other.values) and torch.equal(one.lengths, other.lengths)


def test_half_precision_is_left_first():
    log_probs, lengths = random_outputs(seed=4)
    assert ctc_scores(log_probs.half(), lengths).values.dtype == torch.float32


# ---- words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, pieces, expected",
    [
        ("char", ["a", "b", "▁", "c"], [0, 0, 0, 1]),
        ("char", ["▁", "a", "▁", "▁", "b"], [0, 1, 1, 1, 2]),
        ("char", ["a", "b"], [0, 0]),
        ("bpe", ["▁th", "e", "▁cat", "s"], [0, 0, 1, 1]),
        ("unigram", ["▁", "x", "y", "▁z"], [0, 1, 1, 2]),
        ("wordpiece", ["play", "##ing", "don", "'", "t", "now"], [0, 0, 1, 1, 1, 2]),
        ("wordpiece", ["'", "s"], [0, 0]),
        ("word", ["the", "cat"], [0, 1]),
        ("char", [], []),
    ],
)
def test_which_word_a_piece_belongs_to(kind, pieces, expected):
    assert word_numbers([pieces], kind)[0].tolist() == expected


def test_words_of_a_batch_are_padded():
    out = word_numbers([["a"], [], ["a", "▁", "b"]], "char")
    assert out.tolist() == [[0, -1, -1], [-1, -1, -1], [0, 0, 1]]
    assert word_numbers([], "char").shape == (0, 0)


def test_words_are_as_sure_as_their_tokens_say():
    log_probs, lengths = path((1, 0.5), (2, 0.8), (1, 0.9), (3, 0.4))
    tokens = ce_scores(log_probs, lengths)
    words = torch.tensor([[0, 0, 1, 1]])
    product = by_word(tokens, words).values[0].exp().tolist()
    assert product == pytest.approx([0.5 * 0.8, 0.9 * 0.4])
    minimum = by_word(tokens, words, "minimum").values[0].exp().tolist()
    assert minimum == pytest.approx([0.5, 0.4])


@pytest.mark.parametrize("combine", ["product", "minimum"])
def test_words_of_a_batch_equal_a_loop(combine):
    log_probs, lengths = random_outputs(seed=5)
    tokens = ce_scores(log_probs, lengths)
    steps = torch.randint(0, 2, log_probs.shape[:2], generator=torch.Generator().manual_seed(0))
    words = steps.index_fill(1, torch.tensor([0]), 0).cumsum(1)
    words[1, int(lengths[1]) :] = 99  # padding may hold anything
    out = by_word(tokens, words, combine)
    for row, n in enumerate(lengths.tolist()):
        groups = {}
        for value, word in zip(tokens.values[row, :n].tolist(), words[row, :n].tolist()):
            groups.setdefault(word, []).append(value)
        expected = [sum(g) if combine == "product" else min(g) for g in groups.values()]
        assert out.values[row, : len(expected)].tolist() == pytest.approx(expected)
        assert int(out.lengths[row]) == len(expected)
    assert float(out.mean()[-1]) == -math.inf  # nothing in the last row


def test_a_word_for_every_token_changes_nothing():
    log_probs, lengths = random_outputs(seed=6)
    tokens = ctc_scores(log_probs, lengths)
    each = torch.arange(tokens.values.size(1)).expand(len(lengths), -1)
    torch.testing.assert_close(by_word(tokens, each).mean(), tokens.mean())


# ---- the choice ---------------------------------------------------------------------------------------


def test_the_surer_output_is_kept_and_ties_go_to_ctc():
    config = Config()
    sure, unsure = path((1, 0.9), (0, 0.9), (2, 0.9)), path((1, 0.5), (0, 0.9), (2, 0.9))
    for ctc, ce, chosen in ((unsure, sure, True), (sure, unsure, False)):
        assert prefers_ce(config, *sequence_confidences(config, ctc, ce)).tolist() == [chosen]
    same = torch.tensor([-0.3, -math.inf])
    assert prefers_ce(config, same, same).tolist() == [False, False]
    empty = ce_scores(torch.zeros(1, 0, 4), torch.tensor([0])).mean()
    assert not prefers_ce(config, ctc_scores(*path((0, 0.3))).mean(), empty).any()


def test_a_temperature_makes_an_output_less_sure():
    one, other = path((1, 0.9), (0, 0.9), (2, 0.9)), path((1, 0.88), (0, 0.9), (2, 0.88))
    for temperatures, chosen in (((1, 1), False), ((2, 1), True), ((2, 2), False)):
        config = Config(ctc_temperature=temperatures[0], ce_temperature=temperatures[1])
        assert bool(prefers_ce(config, *sequence_confidences(config, one, other))) is chosen


def test_characters_and_words_are_compared_word_by_word():
    # "ab" and "c" by characters, two words of word pieces; a mean over characters would flatter CTC.
    ctc = path((1, 0.8), (2, 0.8), (3, 0.99), (1, 0.8))
    ce = path((1, 0.78), (2, 0.78))
    numbers = word_numbers([["a", "b", "▁", "a"]], "char"), word_numbers([["ab", "a"]], "wordpiece")
    tokens, words = Config(), Config(unit="word")
    assert not prefers_ce(tokens, *sequence_confidences(tokens, ctc, ce))
    confidences = sequence_confidences(words, ctc, ce, *numbers)
    expected = (math.log(0.8 * 0.8 * 0.99) + math.log(0.8)) / 2
    assert float(confidences[0]) == pytest.approx(expected)
    assert prefers_ce(words, *confidences)
    least = Config(unit="word", word="minimum")
    assert not prefers_ce(least, *sequence_confidences(least, ctc, ce, *numbers))
    with pytest.raises(ValueError, match="needs the word of each token"):
        sequence_confidences(words, ctc, ce)


def test_the_choice_can_be_fixed_or_know_the_errors():
    ctc, ce = torch.tensor([-0.1, -0.5, -0.2]), torch.tensor([-0.2, -0.1, -0.2])
    errors = torch.tensor([3, 1, 2]), torch.tensor([2, 2, 2])
    assert prefers_ce(Config(), ctc, ce).tolist() == [False, True, False]
    assert prefers_ce(Config(select="ctc2"), ctc, ce).tolist() == [False] * 3
    assert prefers_ce(Config(select="ce"), ctc, ce).tolist() == [True] * 3
    assert prefers_ce(Config(select="oracle"), ctc, ce, *errors).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="needs the errors"):
        prefers_ce(Config(select="oracle"), ctc, ce)


def test_settings_are_checked():
    with pytest.raises(ProblemsError, match="path_mean is over frames"):
        from_dict(Config, {"unit": "word", "confidence": "path_mean"})
    with pytest.raises(ProblemsError, match="ce_temperature=0"):
        from_dict(Config, {"ce_temperature": 0})
