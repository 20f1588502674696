"""Distractors and the contrastive loss against brute force; diversity and perplexity at their bounds."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from speechkit.losses import contrastive
from speechkit.losses.contrastive import (
    Config,
    contrastive_logits,
    contrastive_loss,
    correct,
    draw_distractors,
)
from speechkit.losses.diversity import diversity_loss, perplexity

LENGTHS = [9, 5, 0, 12]


def make_mask():
    mask = torch.zeros(4, 12, dtype=torch.bool)
    mask[0, [1, 2, 3, 7]] = True
    mask[1, [0, 4]] = True
    mask[3, [2, 3, 5, 8, 11]] = True
    return mask


def draw(seed=0, **values):
    keys = torch.arange(4) + 100 * seed
    return draw_distractors(make_mask(), torch.tensor(LENGTHS), keys, Config(**values))


def frames_of(drawn, everywhere):
    """(utterance, frame) of each row, and of each of its distractors, by brute force over the groups."""
    mask = make_mask()
    pool = [
        (b, t) for b in range(4) for t in range(12) if (t < LENGTHS[b] if everywhere else bool(mask[b, t]))
    ]
    first = np.cumsum([0, *drawn.sizes.tolist()])
    group = np.repeat(np.arange(len(drawn.rows)), drawn.rows)
    rows = [(b, t) for b in range(4) for t in range(12) if mask[b, t]]
    places = [[pool[first[g] + place] for place in others] for g, others in zip(group, drawn.others.tolist())]
    own = [pool[first[g] + place] for g, place in zip(group, drawn.own.tolist())]
    return rows, own, places


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("cross", [0, 200])
def test_distractors_are_never_the_own_frame_nor_padding(everywhere, cross):
    drawn = draw(negatives=200, cross_sample_negatives=cross, negatives_from_everywhere=everywhere)
    mask = make_mask()
    rows, own, places = frames_of(drawn, everywhere)
    assert own == rows
    for (utterance, frame), others in zip(rows, places):
        assert (utterance, frame) not in others
        assert all(b == utterance for b, _ in others[:200])
        assert all(t < LENGTHS[b] and (everywhere or mask[b, t]) for b, t in others)
        candidates = LENGTHS[utterance] if everywhere else int(mask[utterance].sum())
        assert len(set(others[:200])) == candidates - 1  # 200 draws of at most 11 see all of them
        if cross:
            assert len({b for b, _ in others[200:]}) == 3


def test_distractors_are_even_over_the_others():
    rows = torch.cat([draw(seed, negatives=100).others for seed in range(40)])[6::11]
    own = draw().own[6]
    counts = np.bincount(rows.flatten(), minlength=5)
    assert counts[own] == 0
    expected = 4000 / 4
    assert ((np.delete(counts, own) - expected) ** 2 / expected).sum() < 16.3  # 3 degrees, 1 in 1000


def test_distractors_depend_on_key_and_mask_of_the_utterance_alone():
    mask, lengths, keys = make_mask(), torch.tensor(LENGTHS), torch.arange(4)
    config = Config(negatives=20)
    whole = draw_distractors(mask, lengths, keys, config)
    order = torch.tensor([3, 1, 0])
    other = draw_distractors(mask[order], lengths[order], keys[order], config)
    groups = dict(zip([0, 1, 2, 3], whole.others.split(whole.rows.tolist())))
    for utterance, others in zip(order.tolist(), other.others.split(other.rows.tolist())):
        assert torch.equal(others, groups[utterance])
    assert not torch.equal(draw(1).others, whole.others)


def brute_force(predictions, candidates, drawn, words, temperature):
    """Equation 3 frame by frame."""
    first = np.cumsum([0, *drawn.sizes.tolist()])
    group = np.repeat(np.arange(len(drawn.rows)), drawn.rows)
    rows = []
    for n, prediction in enumerate(predictions):
        own = first[group[n]] + int(drawn.own[n])
        row = [cosine_similarity(prediction, candidates[own], dim=0) / temperature]
        for place in drawn.others[n].tolist():
            other = first[group[n]] + place
            cosine = cosine_similarity(prediction, candidates[other], dim=0) / temperature
            row.append(cosine if words[other] != words[own] else torch.tensor(-torch.inf))
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("cross", [0, 7])
def test_logits_equal_brute_force(everywhere, cross):
    torch.manual_seed(0)
    drawn = draw(negatives=9, cross_sample_negatives=cross, negatives_from_everywhere=everywhere)
    total = int(drawn.sizes.sum())
    words = torch.randint(0, 4, (total,))
    predictions, candidates = torch.randn(11, 6).double(), torch.randn(4, 6).double()[words]
    found = contrastive_logits(predictions, candidates, drawn, words, 0.1)
    expected = brute_force(predictions, candidates, drawn, words, 0.1)
    torch.testing.assert_close(found, expected)
    assert found.isneginf().any() and not found[:, 0].isneginf().any()
    losses = [-math.log(row[0].exp() / row.exp().sum()) for row in expected]
    torch.testing.assert_close(contrastive_loss(found), torch.tensor(losses, dtype=torch.float64))


def test_gradients_equal_finite_differences():
    torch.manual_seed(1)
    drawn, words = draw(negatives=4), torch.arange(11).remainder(6)

    def loss(predictions, codes):
        logits = contrastive_logits(predictions, codes.index_select(0, words), drawn, words, 0.5)
        return contrastive_loss(logits).sum()

    inputs = (torch.randn(11, 3).double().requires_grad_(), torch.randn(6, 3).double().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


def test_backward_is_the_same_bits_each_time():
    torch.manual_seed(2)
    lengths, keys = torch.tensor([300, 200]), torch.arange(2)
    mask = torch.rand(2, 300) < 0.5
    mask[1, 200:] = False
    drawn = draw_distractors(mask, lengths, keys, Config())
    total = int(mask.sum())
    predictions, candidates = torch.randn(total, 64), torch.randn(total, 64)
    words, gradients = torch.arange(total), []
    for _ in range(3):
        x, y = predictions.clone().requires_grad_(), candidates.clone().requires_grad_()
        contrastive_loss(contrastive_logits(x, y, drawn, words, 0.1)).sum().backward()
        gradients.append((x.grad, y.grad))
    for x, y in gradients[1:]:
        assert torch.equal(x, gradients[0][0]) and torch.equal(y, gradients[0][1])


def test_zero_vectors_and_equal_targets_stay_finite():
    drawn = draw(negatives=5)
    zeros = torch.zeros(11, 4, requires_grad=True)
    losses = contrastive_loss(contrastive_logits(zeros, zeros, drawn, torch.arange(11), 0.1))
    torch.testing.assert_close(losses, torch.full((11,), math.log(6)))
    losses.sum().backward()
    assert zeros.grad.isfinite().all()
    x = torch.randn(11, 4, requires_grad=True)
    losses = contrastive_loss(contrastive_logits(x, x[:1].expand(11, 4), drawn, torch.zeros(11).long(), 0.1))
    losses.sum().backward()
    assert losses.eq(0).all() and x.grad.isfinite().all()


def test_fp32_under_autocast():
    drawn, x = draw(negatives=5), torch.randn(11, 4)
    expected = contrastive_logits(x, x, drawn, torch.arange(11), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive_logits(x, x, drawn, torch.arange(11), 0.1), expected)


def test_accuracy_leaves_out_degenerate_rows():
    inf = math.inf
    logits = torch.tensor([[2, 1, 0], [1, 2, 0], [1, 1, 1], [1, -inf, -inf], [1, -inf, 0], [1, 1, 0.0]])
    assert correct(logits).tolist() == [True, False, False, False, True, False]


def test_codebook_distractors():
    drawn = draw(negatives=3)
    codes = contrastive.draw_codes(drawn, 500, 2, 4)
    assert codes.shape == (11, 500, 2) and set(codes.flatten().tolist()) == {0, 1, 2, 3}
    x, vectors = torch.randn(11, 4).double(), torch.randn(11, 500, 4).double()
    equal = torch.zeros(11, 500, dtype=torch.bool)
    equal[2, 3] = True
    found = contrastive.codebook_logits(x, vectors, equal, 0.1)
    expected = (cosine_similarity(x[:, None], vectors, dim=2) / 0.1).masked_fill(equal, -torch.inf)
    torch.testing.assert_close(found, expected)


def test_no_masked_frame_at_all_has_loss_zero_and_a_gradient():
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    drawn = draw_distractors(nothing, torch.tensor([5, 3]), torch.arange(2), Config())
    x = torch.zeros(0, 4, requires_grad=True)
    loss = contrastive_loss(contrastive_logits(x, x, drawn, torch.zeros(0).long(), 0.1)).sum()
    loss.backward()
    assert loss == 0 and x.grad.shape == (0, 4)


def test_no_distractor_is_refused():
    with pytest.raises(ValueError, match="at least one distractor"):
        Config(negatives=0)


# Diversity


def test_diversity_at_its_bounds():
    even = torch.full((10, 2, 320), 1 / 320, dtype=torch.float64)
    assert float(perplexity(even.mean(0))) == pytest.approx(640)
    assert float(diversity_loss(even)) == pytest.approx(0, abs=1e-6)
    assert float(diversity_loss(even, "entropy")) == pytest.approx(-2 * math.log(320) / 640)
    single = torch.zeros(10, 2, 320, dtype=torch.float64)
    single[:, :, 7] = 1
    assert float(perplexity(single.mean(0))) == 2
    assert float(diversity_loss(single)) == pytest.approx((640 - 2) / 640)
    assert float(diversity_loss(single, "entropy")) == 0
    assert 0.1 * (640 - 25.86) / 640 / math.log(2) == pytest.approx(0.138, abs=0.001)  # a published log line


@pytest.mark.parametrize("form", ["perplexity", "entropy"])
def test_diversity_raises_the_entropy_and_its_gradient_is_right(form):
    torch.manual_seed(0)
    logits = torch.randn(6, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: diversity_loss(x.softmax(-1), form), (logits,))
    before = perplexity(logits.softmax(-1).mean(0))
    diversity_loss(logits.softmax(-1), form).backward()
    after = perplexity((logits - logits.grad).softmax(-1).mean(0))
    assert 2 <= before < after <= 10
