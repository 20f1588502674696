"""CTC prefix scores against sums over all alignments."""

import itertools
import math

import pytest
import torch

from speechkit.search.ctc_prefix import CtcPrefix

VOCAB, FRAMES = 4, 5


def random_log_probs(rows, frames=FRAMES, seed=0):
    torch.manual_seed(seed)
    return (2 * torch.randn(rows, frames, VOCAB, dtype=torch.float64)).log_softmax(-1)


def readings(log_probs):
    """Probability of every token sequence, by all alignments of `(T, V)`."""
    found = {}
    for path in itertools.product(range(VOCAB), repeat=len(log_probs)):
        said = tuple(token for token, _ in itertools.groupby(path) if token)
        value = math.exp(sum(float(frame[token]) for frame, token in zip(log_probs, path)))
        found[said] = found.get(said, 0.0) + value
    return found


def log_sum(values):
    total = math.fsum(values)
    return math.log(total) if total else -math.inf


def expected(found, prefix):
    """Log probability of everything that begins with a prefix, and of the prefix alone."""
    begins = log_sum(p for said, p in found.items() if said[: len(prefix)] == prefix)
    return begins, log_sum([found.get(prefix, 0.0)])


def close(value, wanted):
    assert value == pytest.approx(wanted, abs=1e-10) or (value == wanted == -math.inf)


def test_scores_equal_the_sum_over_all_alignments():
    """Four utterances of several lengths, two hypotheses each, chosen crosswise; repeats among them."""
    lengths = torch.tensor([5, 3, 1, 4])
    log_probs = random_log_probs(4)
    found = [readings(row[:length]) for row, length in zip(log_probs, lengths)]
    for row, length in zip(log_probs, lengths):
        row[length:] = math.nan
    prefix = CtcPrefix(log_probs, lengths)
    hypotheses, steps = [()] * 4, 0
    while True:
        tokens = torch.arange(VOCAB).flip(0).expand(len(hypotheses), -1)
        begun, whole = prefix.score(tokens)
        width = len(hypotheses) // 4
        for i, hypothesis in enumerate(hypotheses):
            close(float(whole[i]), expected(found[i // width], hypothesis)[1])
            for value, token in zip(begun[i].tolist(), tokens[i].tolist()):
                wanted = expected(found[i // width], (*hypothesis, token))[0] if token else -math.inf
                close(value, wanted)
        steps += 1
        if steps == 6:
            return
        last = width - 1
        rows = torch.tensor([u * width + w for u in range(4) for w in (last, 0)])
        chosen = torch.tensor([1 + (steps + k // 2) % 3 if k % 2 else 2 for k in range(8)])
        prefix.extend(rows, chosen)
        hypotheses = [(*hypotheses[row], token) for row, token in zip(rows.tolist(), chosen.tolist())]
        assert steps < 2 or (2, 2) in {hypothesis[-2:] for hypothesis in hypotheses}


def test_utterances_that_are_over_are_left_out():
    lengths = torch.tensor([5, 3, 4])
    log_probs = random_log_probs(3, seed=3)
    prefix = CtcPrefix(log_probs, lengths)
    prefix.extend(torch.tensor([1, 1, 2, 2]), torch.tensor([1, 2, 3, 1]))  # of the second and third
    prefix.keep(torch.tensor([1, 2]))
    begun, whole = prefix.score(torch.tensor([[1, 2, 3]] * 4))
    for i, (utterance, token) in enumerate([(1, 1), (1, 2), (2, 3), (2, 1)]):
        found = readings(log_probs[utterance, : lengths[utterance]])
        close(float(whole[i]), expected(found, (token,))[1])
        for k in range(3):
            close(float(begun[i, k]), expected(found, (token, k + 1))[0])


def test_impossible_frames_and_long_utterances_stay_numbers():
    log_probs = random_log_probs(1, 3000).float()
    log_probs[:, ::7, 2] = -math.inf
    prefix = CtcPrefix(log_probs, torch.tensor([3000]))
    for token in (1, 1, 2, 3):
        begun, whole = prefix.score(torch.tensor([[1, 2, 3]]))
        assert not begun.isnan().any() and not whole.isnan().any() and (begun > -1e4).all()
        prefix.extend(torch.tensor([0]), torch.tensor([token]))


def test_single_precision_keeps_four_digits_over_long_utterances():
    exact = random_log_probs(1, 400, seed=2)
    both = [CtcPrefix(values, torch.tensor([400])) for values in (exact, exact.float())]
    for token in [1, 2, 2, 3] * 20:
        scores = [prefix.score(torch.tensor([[1, 2, 3]]))[0] for prefix in both]
        torch.testing.assert_close(scores[1].double(), scores[0], rtol=1e-5, atol=1e-4)
        for prefix in both:
            prefix.extend(torch.tensor([0]), torch.tensor([token]))
