"""Regression of embeddings: by hand, its inequalities and identities, and where no gradient may go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechkit.losses.embedding_regression import Regression, distance, frame_weights, regression_loss
from speechkit.losses.transducer import transducer_loss
from speechkit.losses.transducer_lattice import Occupations

B, T, U, D, P, E = 3, 7, 4, 5, 6, 8
LENGTHS, SIZES = torch.tensor([7, 4, 2]), torch.tensor([4, 2, 0])


def draw() -> dict[str, Tensor]:
    """Frames, states, targets, and the log-probabilities of a lattice."""
    torch.manual_seed(2)
    log_probs = torch.randn(B, T, U + 1, 6, dtype=torch.float64).log_softmax(-1)
    return {
        "frames": torch.randn(B, T, D, dtype=torch.float64).requires_grad_(),
        "states": torch.randn(B, U + 1, P, dtype=torch.float64).requires_grad_(),
        "targets": torch.randn(B, U, E, dtype=torch.float64).requires_grad_(),
        "blank": log_probs[..., 0].clone().requires_grad_(),
        "label": log_probs[:, :, :-1, 1].clone().requires_grad_(),
    }


def lattice(parts: dict[str, Tensor]) -> Occupations:
    """Where the paths lie."""
    return transducer_loss(parts["blank"], parts["label"], LENGTHS, SIZES)[1]


def regression() -> Regression:
    """R of random weights."""
    torch.manual_seed(3)
    return Regression(D, P, E).double()


def test_the_example_of_two_frames_and_one_label():
    """q by hand: node (1, 0.517) / 1.517, label (0.483, 0.517), blank (0.517 in the first frame alone)."""
    blank = torch.tensor([[[0.6, 0.7], [0.5, 0.9]]], dtype=torch.float64).log()
    label = torch.tensor([[[0.4], [0.5]]], dtype=torch.float64).log()
    _, found = transducer_loss(blank, label, torch.tensor([2]), torch.tensor([1]))
    phi = torch.tensor([1.0, 3.0], dtype=torch.float64)
    wanted = {"node_norm": 1.681818, "label": 2.034483, "node": 2.551724, "blank_norm": 1.0}
    for weighting, average in wanted.items():
        weights = frame_weights(found, weighting)[0, :, 0]
        assert float(weights @ phi) == pytest.approx(average, abs=5e-7), weighting


def test_weights_are_distributions_over_frames_where_they_say_so():
    found = lattice(draw())
    for weighting in ("node_norm", "label", "blank_norm", "node"):
        weights = frame_weights(found, weighting)
        assert weights.shape == (B, T, U) and not weights.requires_grad
        for i, (t, u) in enumerate(zip(LENGTHS.tolist(), SIZES.tolist())):
            sums = weights[i].sum(0)[:u]
            assert weights[i, t:].abs().sum() == 0 and weights[i, :, u:].abs().sum() == 0
            if weighting == "node":
                assert torch.all(sums > 1)
            else:
                torch.testing.assert_close(sums, torch.ones(u, dtype=torch.float64))


def test_without_a_blank_in_a_row_the_label_is_where_it_is_put_out():
    """One frame: all labels come in it and only the last row has a blank."""
    parts = draw()
    one = torch.ones(B, dtype=torch.int64)
    _, found = transducer_loss(parts["blank"][:, :1], parts["label"][:, :1], one, SIZES)
    torch.testing.assert_close(frame_weights(found, "blank_norm"), found.label)


@pytest.mark.parametrize("kind", ["l1", "l2", "smooth_l1", "cosine"])
def test_distances_equal_their_definitions(kind):
    a, b = (torch.randn(4, E, dtype=torch.float64) for _ in range(2))
    for x, y, found in zip(a, b, distance(a, b, kind)):
        gap = (x - y).abs()
        wanted = {
            "l1": gap.mean(),
            "l2": gap.square().mean(),
            "smooth_l1": torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean(),
            "cosine": 1 - x @ y / (x.norm() * y.norm()),
        }[kind]
        assert float(found) == pytest.approx(float(wanted), abs=1e-12)


def test_the_loss_is_the_double_loop_and_padding_is_not_looked_at():
    parts = draw()
    predicted = torch.randn(B, U, E, dtype=torch.float64).requires_grad_()
    losses = regression_loss(predicted, parts["targets"], SIZES)
    for i, u in enumerate(SIZES.tolist()):
        wanted = sum((predicted[i, k] - parts["targets"][i, k]).abs().sum() / E for k in range(u))
        assert float(losses[i].detach()) == pytest.approx(float(torch.as_tensor(wanted).detach()))
    with torch.no_grad():
        for i, u in enumerate(SIZES.tolist()):
            predicted[i, u:], parts["targets"][i, u:] = torch.nan, torch.inf
    again = regression_loss(predicted, parts["targets"], SIZES)
    assert torch.equal(again, losses)
    again.sum().backward()
    assert predicted.grad.isfinite().all() and parts["targets"].grad is None, "targets are constants"


@pytest.mark.parametrize("kind", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("pairs", [1, 8, 1000])
def test_the_joint_loss_is_the_double_loop_in_pieces_of_any_size(kind, pairs):
    parts, r = draw(), regression()
    weights = frame_weights(lattice(parts), "node_norm")
    inputs = (parts["frames"], parts["states"], weights, parts["targets"], LENGTHS, SIZES)
    losses = r.joint(*inputs, kind, pairs=pairs)
    for i, (size, count) in enumerate(zip(LENGTHS.tolist(), SIZES.tolist())):
        wanted = torch.zeros((), dtype=torch.float64)
        for t in range(size):
            for u in range(count):
                predicted = r.of_frames(parts["frames"][i, t]) + r.of_states(parts["states"][i, u])
                wanted = wanted + weights[i, t, u] * distance(predicted, parts["targets"][i, u], kind)
        torch.testing.assert_close(losses[i], wanted)
    grads = torch.autograd.grad(losses.sum(), [parts["frames"], *r.parameters()])
    whole = torch.autograd.grad(r.joint(*inputs, kind, pairs=10**6).sum(), [parts["frames"], *r.parameters()])
    for a, b in zip(grads, whole):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["l1", "l2", "smooth_l1"])
def test_a_convex_distance_is_never_more_for_the_average_frame(kind):
    parts, r = draw(), regression()
    for weighting in ("node_norm", "label", "blank_norm"):
        weights = frame_weights(lattice(parts), weighting)
        first = (parts["frames"], parts["states"], weights, parts["targets"])
        average, all_frames = r.synchronous(*first, SIZES, kind), r.joint(*first, LENGTHS, SIZES, kind)
        assert torch.all(average <= all_frames + 1e-12) and float((all_frames - average)[0].detach()) > 1e-3


def test_for_squares_the_difference_is_the_variance_of_the_frames_through_the_map():
    """E|R(phi) - e|^2 - |R(E phi) - e|^2 = trace(W Cov(phi) W^T), for each label."""
    parts, r = draw(), regression()
    weights = frame_weights(lattice(parts), "node_norm")
    first = (parts["frames"], parts["states"], weights, parts["targets"])
    gap = E * (r.joint(*first, LENGTHS, SIZES, "l2") - r.synchronous(*first, SIZES, "l2"))
    for i, count in enumerate(SIZES.tolist()):
        wanted = torch.zeros((), dtype=torch.float64)
        for u in range(count):
            q, phi = weights[i, :, u], parts["frames"][i]
            away = phi - q @ phi
            wanted = wanted + torch.trace(r.of_frames.weight @ (away.T * q) @ away @ r.of_frames.weight.T)
        torch.testing.assert_close(gap[i], wanted, rtol=1e-10, atol=1e-12)


def test_both_are_equal_when_each_label_has_one_frame():
    parts, r = draw(), regression()
    weights = torch.nn.functional.one_hot(torch.tensor([[0, 2, 2, 6]] * B), T).transpose(1, 2).double()
    first, lengths = (parts["frames"], parts["states"], weights, parts["targets"]), torch.tensor([7, 7, 7])
    torch.testing.assert_close(r.synchronous(*first, SIZES), r.joint(*first, lengths, SIZES))


def test_the_average_frame_itself_is_learnt_perfectly():
    parts, r = draw(), Regression(D, P, D).double()
    with torch.no_grad():
        r.of_frames.weight.copy_(torch.eye(D))
        r.of_states.weight.zero_(), r.of_states.bias.zero_()
    weights = frame_weights(lattice(parts), "node_norm")
    targets = torch.einsum("btu,btd->bud", weights, parts["frames"])
    assert r.synchronous(parts["frames"], parts["states"], weights, targets, SIZES).abs().max() < 1e-12


@pytest.mark.parametrize("weighting", ["node_norm", "label", "node", "blank_norm"])
def test_no_gradient_goes_through_the_weights(weighting):
    parts, r = draw(), regression()
    found = lattice(parts)
    weights = frame_weights(found, weighting)
    loss = r.synchronous(parts["frames"], parts["states"], weights, parts["targets"], SIZES).sum()
    grads = torch.autograd.grad(loss, list(parts.values()), allow_unused=True)
    got = dict(zip(parts, grads))
    assert got["frames"].abs().sum() > 0 and got["states"].abs().sum() > 0
    assert got["blank"] is got["label"] is got["targets"] is None


def test_weights_that_are_no_constants_would_send_a_gradient_into_the_lattice():
    """The same weights, by autograd through the recursion: what the test above would find without a stop."""
    parts, r = draw(), regression()
    t, u = int(LENGTHS[0]), int(SIZES[0])
    blank, label = parts["blank"][0, :t, : u + 1], parts["label"][0, :t, :u]
    alpha = {(0, 0): blank.new_zeros(())}
    for i in range(t):
        for j in range(u + 1):
            ways = [alpha[i - 1, j] + blank[i - 1, j]] if i else []
            ways += [alpha[i, j - 1] + label[i, j - 1]] if j else []
            alpha[i, j] = torch.stack(ways).logsumexp(0) if ways else alpha[i, j]
    log_prob = alpha[t - 1, u] + blank[t - 1, u]
    silent, spoken = torch.autograd.grad(log_prob, (blank, label), create_graph=True)
    node = silent[:, :u] + spoken
    weights = (node / node.sum(0))[None]
    torch.testing.assert_close(weights[0], frame_weights(lattice(parts), "node_norm")[0, :t, :u])
    sides = [parts[name][:1] for name in ("frames", "states")]
    loss = r.synchronous(*sides, weights, parts["targets"][:1], SIZES[:1]).sum()
    for gradient in torch.autograd.grad(loss, (blank, label)):
        assert gradient.abs().sum() > 1e-3
