"""Mask-Predict: which tokens are masked again, what stays, how long it goes on, which candidate wins."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from speechkit.search.mask_predict import Config, Filled, length_candidates, mask_predict

MASK, PAD, VOCAB = 90, 91, 12


class Model:
    """Draws new log probabilities at every pass, and keeps what it got and said."""

    def __init__(self, dtype=torch.float64):
        self.seen, self.said, self.dtype = [], [], dtype

    def __call__(self, ids, lengths):
        generator = torch.Generator().manual_seed(len(self.seen))
        drawn = torch.randn(*ids.shape, VOCAB, generator=generator, dtype=torch.float64) * 2
        self.seen.append(ids.clone())
        self.said.append(drawn.log_softmax(-1))
        return self.said[-1].to(self.dtype)


def by_hand(model, row, length, config):
    """One row of the published algorithm in plain Python, from what the model said."""
    tokens, scores, inputs = [], [], []
    for iteration, said in enumerate(model.said):
        here = said[row, :length].tolist()
        count = math.floor(length * (1 - Fraction(iteration, config.iterations)))
        count = length if iteration == 0 else max(config.least, count)
        worst = sorted(range(length), key=lambda i: scores[i])[:count] if iteration else range(length)
        tokens = tokens or [None] * length
        scores = scores or [None] * length
        inputs.append([MASK if i in worst else tokens[i] for i in range(length)])
        for i in worst:
            scores[i] = max(here[i])
            tokens[i] = here[i].index(scores[i])
    return tokens, scores, inputs


@pytest.mark.parametrize("least", [0, 1])
@pytest.mark.parametrize("iterations", [1, 4, 10])
def test_every_pass_is_that_of_the_published_algorithm(iterations, least):
    config = Config(iterations=iterations, least=least)
    lengths = torch.tensor([[10], [1], [23], [0], [7]])
    model = Model()
    answers = mask_predict(model, lengths, config, MASK, PAD)
    assert len(model.seen) == iterations
    for row, length in enumerate(lengths.flatten().tolist()):
        tokens, scores, inputs = by_hand(model, row, length, config)
        for seen, expected in zip(model.seen, inputs):
            assert seen[row, :length].tolist() == expected
            assert (seen[row, length:] == PAD).all()
        assert answers[row].tokens == tokens
        assert answers[row].log_probs == pytest.approx(scores, abs=1e-12)
        assert answers[row].score == pytest.approx(sum(scores) / length if length else -math.inf)


def test_numbers_of_masked_tokens_are_exact():
    model = Model()
    mask_predict(model, torch.tensor([[10], [20], [3]]), Config(least=0), MASK, PAD)
    counts = [[int((row == MASK).sum()) for row in seen] for seen in model.seen]
    assert [a for a, _, _ in counts] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert [b for _, b, _ in counts] == [20, 18, 16, 14, 12, 10, 8, 6, 4, 2]
    assert [c for _, _, c in counts] == [3, 2, 2, 2, 1, 1, 1, 0, 0, 0]


def test_the_least_confident_are_masked_and_pads_never_though_all_is_certain():
    first = torch.tensor([0.9, 0.1, 0.5, 1.0, 0.3])
    calls = []

    def predict(ids, lengths):
        calls.append(ids.tolist())
        probabilities = first if len(calls) == 1 else torch.ones(5)
        table = torch.full((2, 5, 3), 1e-9).log()
        table[..., 1 + len(calls) % 2] = probabilities.log()
        return table

    answers = mask_predict(predict, torch.tensor([[5], [2]]), Config(iterations=5), MASK, PAD)
    assert calls[1] == [[MASK, MASK, MASK, 2, MASK], [2, MASK, PAD, PAD, PAD]]
    # All are certain by now but the last of the first row, never masked, and the first of the second.
    assert calls[2] == [[MASK, MASK, MASK, 2, 1], [MASK, 1, PAD, PAD, PAD]]
    assert calls[3] == [[MASK, MASK, 2, 2, 1], [MASK, 1, PAD, PAD, PAD]]
    assert answers[0].log_probs == [0.0] * 5


def test_candidates_are_near_the_expected_length():
    lengths = torch.tensor([5, 1, 60, 0])
    assert length_candidates(lengths, 1, 60).tolist() == [[5], [1], [60], [0]]
    assert length_candidates(lengths, 5, 60).tolist() == [
        [5, 6, 4, 7, 3],
        [1, 2, 1, 3, 1],
        [60, 60, 59, 60, 58],
        [0] * 5,
    ]
    assert length_candidates(lengths, 3, 4).tolist()[0] == [4, 4, 4]


@pytest.mark.parametrize("normaliser", ["length", "gnmt"])
def test_the_best_candidate_wins(normaliser):
    config = Config(normaliser=normaliser, length_beam=3)
    lengths = length_candidates(torch.tensor([8, 3, 0]), 3, 20)
    model = Model()
    answers = mask_predict(model, lengths, config, MASK, PAD)
    for utterance, sizes in enumerate(lengths.tolist()):
        if not any(sizes):
            assert answers[utterance] == Filled([], -math.inf, [])
            continue
        scored = []
        for candidate, length in enumerate(sizes):
            tokens, log_probs, _ = by_hand(model, 3 * utterance + candidate, length, config)
            divisor = length if normaliser == "length" else ((5 + length) / 6) ** 1.1
            scored.append((sum(log_probs) / divisor, tokens))
        best = max(scored)
        assert answers[utterance].tokens == best[1]
        assert answers[utterance].score == pytest.approx(best[0])


def test_normalisers_can_disagree_and_equal_candidates_go_to_the_first():
    def sure_of(probability):
        def predict(ids, lengths):
            table = torch.zeros(*ids.shape, 2)
            table[..., 1] = torch.tensor(probability).view(-1, 1).expand(ids.shape)
            return table.log()

        return predict

    lengths = torch.tensor([[2, 10]])
    chosen = {}
    for normaliser in ("length", "gnmt"):
        config = Config(normaliser=normaliser, iterations=2)
        answer = mask_predict(sure_of([0.8, 0.85]), lengths, config, MASK, PAD)[0]
        chosen[normaliser] = len(answer.tokens)
    # log .8 = -.223, log .85 = -.163; gnmt: 2 * -.223 / 1.185 = -.377, 10 * -.163 / 2.741 = -.593
    assert chosen == {"length": 10, "gnmt": 2}
    same = mask_predict(sure_of([0.5, 0.5]), lengths, Config(iterations=2), MASK, PAD)[0]
    assert len(same.tokens) == 2


def test_nothing_is_predicted_where_nothing_is_expected():
    def never(ids, lengths):
        raise AssertionError("there is nothing to predict")

    assert (
        mask_predict(never, torch.zeros(2, 3, dtype=torch.int64), Config(), MASK, PAD)
        == [Filled([], -math.inf, [])] * 2
    )


def test_half_precision_is_summed_in_single():
    answers = mask_predict(Model(torch.bfloat16), torch.tensor([[9]]), Config(), MASK, PAD)
    assert answers[0].score == pytest.approx(sum(answers[0].log_probs) / 9, rel=1e-6)
