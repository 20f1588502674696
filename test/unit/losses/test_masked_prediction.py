"""Masked prediction: its loss against the released K + 1-way form, its alignment against a walk in time."""

from __future__ import annotations

import math

import pytest
import torch

from speechkit.losses.masked_prediction import (
    class_perplexity,
    correct,
    cosine_logits,
    frame_labels,
    labelled_lengths,
    prediction_loss,
)


def released_loss(predictions, embeddings, labels, temperature):
    """fairseq's compute_nce: the true class first, then all classes, its copy among them set to -inf."""
    candidates = torch.cat([embeddings[labels][None], embeddings[:, None].expand(-1, len(labels), -1)])
    logits = torch.cosine_similarity(predictions[None], candidates, dim=-1) / temperature
    copies = (candidates[1:] == candidates[:1]).all(-1)
    logits = torch.cat([logits[:1], logits[1:].masked_fill(copies, -math.inf)]).T
    return torch.nn.functional.cross_entropy(logits, logits.new_zeros(len(labels)).long(), reduction="sum")


def test_plain_cross_entropy_is_the_released_loss_and_has_its_gradient():
    torch.manual_seed(0)
    predictions = torch.randn(40, 16, dtype=torch.float64, requires_grad=True)
    embeddings = torch.rand(25, 16, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 25, (40,))
    ours = prediction_loss(cosine_logits(predictions, embeddings, 0.1), labels)
    theirs = released_loss(predictions, embeddings, labels, 0.1)
    assert abs(ours - theirs) < 1e-12 * abs(theirs)
    for a, b in zip(*(torch.autograd.grad(loss, (predictions, embeddings)) for loss in (ours, theirs))):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_half_precision_is_computed_in_single():
    torch.manual_seed(0)
    predictions, embeddings = torch.randn(8, 16), torch.rand(5, 16)
    labels = torch.randint(0, 5, (8,))
    exact = cosine_logits(predictions.bfloat16(), embeddings, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = cosine_logits(predictions.bfloat16(), embeddings, 0.1)
        loss = prediction_loss(logits, labels)
    assert logits.dtype == loss.dtype == torch.float32
    assert torch.equal(logits, exact) and logits.abs().max() <= 10.00001


def test_vectors_of_zeros_give_no_nan():
    x = torch.zeros(3, 4, requires_grad=True)
    loss = prediction_loss(cosine_logits(x, torch.zeros(5, 4), 0.1), torch.tensor([0, 1, 4]))
    loss.backward()
    assert loss.item() == pytest.approx(3 * math.log(5)) and torch.isfinite(x.grad).all()


def test_no_frame_costs_nothing():
    logits = torch.zeros(0, 7, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    prediction_loss(logits, none).backward()
    assert prediction_loss(logits, none).item() == 0 and not correct(logits, none).any()
    assert float(class_perplexity(none, 7)) == 0


def walk(frames, labels, ratio):
    """Frames from the first on that have a label; fairseq's forward_targets, one frame at a time."""
    if ratio * frames > labels:
        frames = math.floor(labels / ratio)
    chosen = [math.floor(t * ratio) for t in range(frames)]
    assert all(0 <= i < labels for i in chosen)
    return chosen


# labels of 100, 50 and 25 Hz for frames of 20 and 40 ms, and a rate that is no whole number of them
@pytest.mark.parametrize("ratio", [4.0, 2.0, 1.0, 0.5, 3.0, 100 / 30, 50 / 30, 0.1])
def test_frames_get_the_label_at_their_time_as_far_as_there_are_labels(ratio):
    for labels in range(1, 40):
        for frames in range(0, 50, 7):
            expected = walk(frames, labels, ratio)
            lengths = labelled_lengths(torch.tensor([frames]), torch.tensor([labels]), ratio)
            assert lengths.tolist() == [len(expected)]
            found = frame_labels(torch.arange(labels)[None], frames, ratio)
            assert found.shape == (1, frames) and found[0, : len(expected)].tolist() == expected


def test_a_second_of_mfccs_gives_each_frame_of_samples_two_labels():
    mfccs, frames = 1 + (16000 - 400) // 160, torch.tensor([49])
    assert mfccs == 98
    assert labelled_lengths(frames, torch.tensor([mfccs]), 2.0).tolist() == [49]
    assert frame_labels(torch.arange(98)[None], 49, 2.0)[0].tolist() == list(range(0, 98, 2))


def test_rows_of_equal_logits_are_never_correct():
    logits = torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    assert correct(logits, torch.tensor([1, 1, 0])).tolist() == [True, False, False]


def test_the_perplexity_is_the_number_of_classes_used_evenly():
    assert float(class_perplexity(torch.tensor([3, 3, 3]), 9)) == pytest.approx(1)
    assert float(class_perplexity(torch.arange(9), 9)) == pytest.approx(9)
    share = torch.tensor([0.5, 0.25, 0.25])
    expected = float(torch.exp(-(share * share.log()).sum()))
    assert float(class_perplexity(torch.tensor([0, 0, 1, 2]), 9)) == pytest.approx(expected)
