"""What BERT's branch reads in training and in decoding, and its targets, by hand."""

from types import SimpleNamespace

import pytest
import torch

from speechkit.config import from_dict
from speechkit.data.batch import Padded, pad
from speechkit.fusion.conditional_mlm import add_noise
from speechkit.models.linguistic_input import IGNORE, Config, inference_input, training_input

VOCAB, JUNK, _ = 60, 55, IGNORE
TRUTH = [[1, 2, 3, 4], [5, 6, 7], [8, 9], [10, 11, 12], [13]]
HEARD = [[1, 3, 4], [5, 6, 7], [], [10, 20, 11, 12], [21]]
# deletion, all right, nothing heard, insertion, substitution
KEYS = torch.tensor([11, 22, 33, 44, 55])


def padded(rows):
    out = pad([torch.tensor(row, dtype=torch.int64) for row in rows], JUNK)
    return Padded(torch.nn.functional.pad(out.values, (0, 2), value=JUNK), out.lengths)


def inputs(p, update=0, truth=TRUTH, heard=HEARD, keys=KEYS, limit=510, **options):
    sampling = {"high": p, "low": p, "mix": options.pop("mix", "utterance")}
    config = from_dict(Config, {"sampling": sampling, **options})
    return training_input(config, padded(truth), padded(heard), keys, update, VOCAB, limit)


def rows(out, name):
    values = getattr(out, name).tolist()
    return [row[:n] for row, n in zip(values, out.lengths.tolist())]


def check_nothing_beyond_the_lengths(out):
    beyond = torch.arange(out.tokens.size(1)) >= out.lengths[:, None]
    assert out.tokens.size(1) == int(out.lengths.max())
    assert not out.tokens[beyond].any() and not out.masked[beyond].any()
    assert (out.cmlm[beyond] == IGNORE).all() and (out.ce[beyond] == IGNORE).all()


@pytest.mark.parametrize("noise", ["abnet", "all_mask"])
def test_the_truth_answers_at_hidden_tokens_and_everywhere(noise):
    out, truth = inputs(1.0, noise=noise), padded(TRUTH)
    expected = add_noise(truth.values, truth.lengths, KEYS, VOCAB, noise)
    for row, tokens in enumerate(TRUTH):
        n = len(tokens)
        assert rows(out, "tokens")[row] == expected.tokens[row, :n].tolist()
        assert rows(out, "masked")[row] == expected.masked[row, :n].tolist()
        chosen = expected.chosen[row, :n].tolist()
        assert rows(out, "cmlm")[row] == [t if c else IGNORE for t, c in zip(tokens, chosen)]
    assert rows(out, "ce") == TRUTH
    check_nothing_beyond_the_lengths(out)


def test_a_hypothesis_answers_with_the_tokens_it_is_aligned_with():
    out = inputs(0.0)
    assert rows(out, "tokens") == HEARD and not out.masked.any()
    assert rows(out, "ce") == [[1, 3, 4], [5, 6, 7], [], [10, _, 11, 12], [13]]
    assert torch.equal(out.ce, out.cmlm)
    check_nothing_beyond_the_lengths(out)


def test_a_hypothesis_answers_by_position_when_cut_or_lengthened():
    out = inputs(0.0, align="pad_trunc")
    assert rows(out, "ce") == TRUTH and torch.equal(out.ce, out.cmlm)
    heard = [[1, 3, 4, "M"], [5, 6, 7], ["M", "M"], [10, 20, 11], [21]]
    masked = [[t == "M" for t in row] for row in heard]
    assert rows(out, "masked") == masked
    assert rows(out, "tokens") == [[0 if t == "M" else t for t in row] for row in heard]
    check_nothing_beyond_the_lengths(out)


def test_a_hypothesis_of_another_length_can_be_skipped():
    out = inputs(0.0, align="skip")
    assert rows(out, "tokens") == HEARD
    assert rows(out, "ce") == [[_] * 3, [5, 6, 7], [], [_] * 4, [13]]
    assert torch.equal(out.ce, out.cmlm)


@pytest.mark.parametrize("align", ["levenshtein", "pad_trunc", "skip"])
def test_each_utterance_has_one_source(align):
    truth, heard = inputs(1.0, align=align), inputs(0.0, align=align)
    keys = torch.arange(400) * 31
    some = inputs(0.5, truth=TRUTH * 80, heard=HEARD * 80, keys=keys, align=align)
    whole = inputs(1.0, truth=TRUTH * 80, heard=HEARD * 80, keys=keys, align=align)
    picks = from_dict(Config, {"sampling": {"high": 0.5, "low": 0.5}}).sampling.picks(keys, 0)
    assert 120 < picks.sum() < 280
    for row, picked in enumerate(picks.tolist()):
        source, place = (whole, row) if picked else (heard, row % 5)
        for name in ("tokens", "masked", "cmlm", "ce"):
            assert rows(some, name)[row] == rows(source, name)[place]
    assert len(truth.lengths) == 5


def test_tokens_are_mixed_where_the_lengths_are_equal():
    keys = torch.arange(300)
    truth, heard = [[1, 2, 3, 4]] * 200 + [[1, 2]] * 100, [[31, 32, 33, 34]] * 200 + [[31]] * 100
    out = inputs(0.5, truth=truth, heard=heard, keys=keys, mix="token", noise="all_mask")
    sources = [["heard" if t > 30 else "truth" for t in row] for row in rows(out, "tokens")]
    mixed = [row for row in sources[:200] if len(set(row)) == 2]
    assert 150 < len(mixed) < 200  # 7 of 8 of rows of four
    assert rows(out, "ce")[:200] == truth[:200]
    for tokens, masked, cmlm, true in zip(
        rows(out, "tokens"), rows(out, "masked"), rows(out, "cmlm"), truth[:200]
    ):
        assert cmlm == [t if heard > 30 or m else IGNORE for t, heard, m in zip(true, tokens, masked)]
    assert {tuple(row) for row in sources[200:]} == {("truth", "truth"), ("heard",)}


@pytest.mark.parametrize("mix", ["utterance", "token"])
@pytest.mark.parametrize("align", ["levenshtein", "pad_trunc", "skip"])
def test_an_utterance_is_treated_alike_in_any_batch(align, mix):
    whole = inputs(0.5, align=align, mix=mix)
    for row in range(5):
        alone = inputs(
            0.5, truth=[TRUTH[row]], heard=[HEARD[row]], keys=KEYS[row, None], align=align, mix=mix
        )
        for name in ("tokens", "masked", "cmlm", "ce"):
            assert rows(alone, name)[0] == rows(whole, name)[row]


def test_hypotheses_longer_than_bert_are_cut_for_it_alone():
    out = inputs(0.0, limit=3)
    assert out.lengths.tolist() == [3, 3, 0, 3, 1]
    assert rows(out, "ce")[3] == [10, _, 11]
    cut = inference_input(padded(HEARD), 2)
    assert rows(cut, "tokens") == [[1, 3], [5, 6], [], [10, 20], [21]]
    assert not cut.masked.any() and (cut.ce == IGNORE).all()
    check_nothing_beyond_the_lengths(cut)


def test_a_batch_in_which_nothing_was_heard():
    out = inputs(0.0, truth=TRUTH[:2], heard=[[], []], keys=KEYS[:2])
    assert out.tokens.shape == (2, 0) and out.lengths.tolist() == [0, 0]
    assert inference_input(padded([[], []]), 5).tokens.shape == (2, 0)


def test_sequences_in_berts_own_ids():
    vocab = SimpleNamespace(cls_id=101, sep_id=102, mask_id=103, pad_id=0)
    lookup = torch.arange(VOCAB) + 1000
    ids, lengths = inputs(0.0, align="pad_trunc").bert_ids(lookup, vocab)
    assert lengths.tolist() == [6, 5, 4, 5, 3]
    assert ids.tolist() == [
        [101, 1001, 1003, 1004, 103, 102],
        [101, 1005, 1006, 1007, 102, 0],
        [101, 103, 103, 102, 0, 0],
        [101, 1010, 1020, 1011, 102, 0],
        [101, 1021, 102, 0, 0, 0],
    ]
    ids, lengths = inference_input(padded([[], []]), 5).bert_ids(lookup, vocab)
    assert ids.tolist() == [[101, 102]] * 2 and lengths.tolist() == [2, 2]


def test_berts_own_answers_can_be_read_again():
    before = inputs(0.0, align="pad_trunc")
    answers = torch.arange(20).view(5, 4) + 30
    after = before.reread(torch.nn.functional.one_hot(answers, VOCAB).float())
    assert rows(after, "tokens") == [[30, 31, 32, 33], [34, 35, 36], [38, 39], [42, 43, 44], [46]]
    assert not after.masked.any() and torch.equal(after.ce, before.ce)
    check_nothing_beyond_the_lengths(after)


def test_words_can_be_kept_from_bert():
    out = inputs(0.0).all_masked()
    assert rows(out, "masked") == [[True] * len(row) for row in HEARD]
    assert rows(out, "ce") == rows(inputs(0.0), "ce")
    check_nothing_beyond_the_lengths(out)


def test_the_truth_knows_where_it_was_heard():
    """By hand: [1 2 3 4] heard as [1 3 4]; what was not heard stands between what was."""
    out = inputs(1.0)
    assert rows(out, "partners") == [[0, -1, 1, 2], [0, 1, 2], [-1, -1], [0, 2, 3], [0]]
    expected = [[0, 0.5, 1, 2], [0, 1, 2], [0, 1], [0, 2, 3], [0]]
    assert rows(out, "clock") == expected
    whole = out.clock_of_all()
    assert whole[0, : 4 + 2].tolist() == [-1, 0, 0.5, 1, 2, 3] and whole[4, :3].tolist() == [-1, 0, 1]


def test_a_hypothesis_has_its_own_clock_and_inserted_tokens_may_be_answered_with_nothing():
    for inserted, target in (("ignore", IGNORE), ("drop", 0)):
        out = inputs(0.0, inserted=inserted)
        assert rows(out, "ce")[3] == [10, target, 11, 12] == rows(out, "cmlm")[3]
        assert rows(out, "clock")[3] == rows(out, "partners")[3] == [0, 1, 2, 3]
        assert (out.ce == 0).sum() == (target == 0)  # not beyond the lengths
        check_nothing_beyond_the_lengths(out)


def test_scores_go_with_the_tokens_that_were_heard():
    scores = torch.arange(5 * 4 * 3, dtype=torch.float32).view(5, 4, 3) + 1
    truth, heard = inputs(1.0).scores_of(scores), inputs(0.0).scores_of(scores)
    torch.testing.assert_close(
        truth[0, :4], torch.stack([scores[0, 0], torch.zeros(3), scores[0, 1], scores[0, 2]])
    )
    torch.testing.assert_close(heard[3, :4], scores[3])
    assert not truth[2].any() and not heard[2].any()
