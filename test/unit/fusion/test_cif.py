"""Integrate-and-fire: the closed form against the recursion, its gradients, counts, and padding."""

from __future__ import annotations

import pytest
import torch

from speechkit.fusion.cif import Cif, dense_weights, integrate, quantity_loss, scale, token_counts

LENGTHS, COUNTS = [23, 9, 40, 1, 17], [5, 2, 11, 1, 0]


def recursion(x, alpha, count):
    """Dong and Xu's loop for one utterance: integrate a frame, fire at 1, carry what is over.

    A frame whose weight passes several whole numbers fires several times.
    """
    tokens, total, state = [], alpha.new_zeros(()), x.new_zeros(x.size(1))
    for frame, weight in zip(x, alpha):
        left = weight
        while total + left >= 1 and len(tokens) < count:
            part = 1 - total
            tokens.append(state + part * frame)
            left, total, state = left - part, alpha.new_zeros(()), x.new_zeros(x.size(1))
        if len(tokens) < count:
            total, state = total + left, state + left * frame
    if len(tokens) < count:
        tokens.append(state)
    return torch.stack(tokens) if tokens else x.new_zeros(0, x.size(1))


def draw(scaling=1.0, dtype=torch.float64, dim=4, seed=0):
    """Frames with NaN beyond the lengths, and weights that sum to the counts unless scaled further."""
    generator = torch.Generator().manual_seed(seed)
    lengths, counts = torch.tensor(LENGTHS), torch.tensor(COUNTS)
    x = torch.randn(len(LENGTHS), max(LENGTHS) + 2, dim, generator=generator, dtype=dtype)
    alpha = torch.rand(x.shape[:2], generator=generator, dtype=dtype) ** 4
    alpha[2, 5:9] = 0
    for row, length in enumerate(LENGTHS):
        x[row, length:] = alpha[row, length:] = float("nan")
    return x, scaling * scale(alpha, lengths, counts).to(dtype), lengths, counts


def gradients(value, *inputs):
    return torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("scaling", [0.73, 1.31, 4.0])
def test_closed_form_and_its_gradients_are_those_of_the_recursion(scaling):
    x, alpha, lengths, counts = draw(scaling)
    assert (alpha > 1).any() or scaling < 4
    x.requires_grad_(), alpha.requires_grad_()
    ours = integrate(x, alpha, lengths, counts)
    pull = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    found = gradients((ours * pull).sum(), x, alpha)
    for row, (length, count) in enumerate(zip(LENGTHS, COUNTS)):
        loop = recursion(x[row, :length], alpha[row, :length], count)
        torch.testing.assert_close(ours[row, : len(loop)], loop, rtol=0, atol=1e-12)
        assert not ours[row, len(loop) :].any()
        if count:
            expected = gradients((loop * pull[row, : len(loop)]).sum(), x, alpha)
        else:
            expected = torch.zeros_like(x), torch.zeros_like(alpha)
        for ours_here, here in zip(found, expected):
            torch.testing.assert_close(ours_here[row], here[row], rtol=0, atol=1e-12)


def test_scaled_weights_and_their_gradient_are_those_of_the_recursion():
    x, _, lengths, counts = draw()
    raw = torch.rand(x.shape[:2], dtype=torch.float64, requires_grad=True)
    ours = integrate(x, scale(raw, lengths, counts), lengths, counts)
    pull = torch.randn(ours.shape, dtype=torch.float64)
    loss = raw.new_zeros(())
    for row, (length, count) in enumerate(zip(LENGTHS, COUNTS)):
        loop = recursion(x[row, :length], raw[row, :length] * count / raw[row, :length].sum(), count)
        torch.testing.assert_close(ours[row, : len(loop)], loop, rtol=0, atol=1e-12)
        assert len(loop) == count
        loss = loss + (loop * pull[row, : len(loop)]).sum()
    expected = gradients(loss, raw)[0]
    torch.testing.assert_close(gradients((ours * pull).sum(), raw)[0], expected, rtol=0, atol=1e-12)


def test_gradcheck_of_frames_and_raw_weights():
    generator = torch.Generator().manual_seed(3)
    lengths, counts = torch.tensor([7, 3]), torch.tensor([3, 5])
    x = torch.randn(2, 7, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    raw = torch.rand(2, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, raw: integrate(x, scale(raw, lengths, counts), lengths, counts), (x, raw)
    )


def test_single_precision_is_exact_over_a_thousand_frames():
    generator = torch.Generator().manual_seed(5)
    lengths, counts = torch.tensor([1000, 811]), torch.tensor([103, 97])
    x = torch.randn(2, 1000, 3, generator=generator).requires_grad_()
    raw = torch.rand(2, 1000, generator=generator).requires_grad_()
    ours = integrate(x, scale(raw, lengths, counts), lengths, counts)
    assert ours.dtype == torch.float32
    pull = torch.randn(ours.shape, generator=generator)
    found = gradients((ours * pull).sum(), x, raw)
    x, raw = (tensor.detach().double().requires_grad_() for tensor in (x, raw))
    for row, (length, count) in enumerate(zip(lengths.tolist(), counts.tolist())):
        loop = recursion(x[row, :length], raw[row, :length] * count / raw[row, :length].sum(), count)
        assert len(loop) == count
        expected = gradients((loop * pull[row, :count].double()).sum(), x, raw)
        assert (ours[row, :count] - loop).abs().max() < 1e-6
        for ours_here, here in zip(found, expected):
            torch.testing.assert_close(ours_here[row].double(), here[row], rtol=1e-6, atol=1e-6)


def test_rows_of_weights_sum_to_one_and_columns_to_alpha():
    x, alpha, lengths, counts = draw()
    weights = dense_weights(alpha, lengths, counts)
    for row, (length, count) in enumerate(zip(LENGTHS, COUNTS)):
        here = weights[row, :count, :length]
        assert weights[row].sum() == here.sum()
        torch.testing.assert_close(here.sum(1), torch.ones(count).double(), rtol=0, atol=1e-12)
        if count:
            torch.testing.assert_close(here.sum(0), alpha[row, :length], rtol=0, atol=1e-12)
    product = weights @ x.nan_to_num()
    torch.testing.assert_close(integrate(x, alpha, lengths, counts), product, rtol=0, atol=1e-12)


def test_hand_computed_tokens():
    x = torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]])
    alpha = torch.tensor([[0.5, 0.75, 2.25, 0.5]])
    # cuts at .5, 1, 1.25, 2, 3, 3.5, 4
    expected = torch.tensor([[[0.5 + 5.0], [2.5 + 75.0], [100.0], [50.0 + 500.0]]])
    assert torch.equal(integrate(x, alpha, torch.tensor([4]), torch.tensor([4])), expected)
    assert torch.equal(integrate(x, alpha, torch.tensor([4]), torch.tensor([2])), expected[:, :2])
    assert torch.equal(
        integrate(x, alpha, torch.tensor([3]), torch.tensor([5])),
        torch.tensor([[[5.5], [77.5], [100.0], [50.0], [0.0]]]),
    )


def test_counts_round_halves_up_and_silence_has_none():
    alpha = torch.tensor([[0.5, 1.0, 1.0], [0.25, 0.25, 9.0], [0.2, 0.29, 0.0], [0.0, 0.0, 0.0], [1.0, 1, 1]])
    lengths = torch.tensor([3, 2, 3, 3, 0])
    assert token_counts(alpha, lengths).tolist() == [3, 1, 0, 0, 0]
    scaled = scale(alpha, lengths, torch.tensor([3, 1, 0, 2, 4]))
    torch.testing.assert_close(scaled.sum(1), torch.tensor([3.0, 1, 0, 0, 0]).double())
    x = torch.ones(5, 3, 2)
    tokens = integrate(x, scaled, lengths, torch.tensor([3, 1, 0, 2, 4]))
    torch.testing.assert_close(tokens.sum((1, 2)), torch.tensor([6.0, 2, 0, 0, 0]))
    assert integrate(x, scaled, lengths, torch.zeros(5, dtype=torch.int64)).shape == (5, 0, 2)


def test_quantity_loss_counts_valid_frames():
    alpha = torch.tensor([[0.5, 1.0, 7.0], [1.0, 1.0, 1.0]], requires_grad=True)
    loss = quantity_loss(alpha, torch.tensor([2, 3]), torch.tensor([3, 1]))
    loss.backward()
    assert loss.item() == 1.5 + 2.0
    assert alpha.grad.tolist() == [[-1.0, -1.0, 0.0], [1.0, 1.0, 1.0]]


def test_padding_and_order_change_nothing():
    torch.manual_seed(0)
    cif = Cif(8, 6).double()
    frames = torch.randn(5, 42, 8, dtype=torch.float64)
    lengths, counts = torch.tensor(LENGTHS), torch.tensor(COUNTS)
    order = torch.tensor([3, 1, 4, 0, 2])
    for given in (counts, None):
        whole = cif(frames, lengths, given)
        shuffled = cif(frames[order], lengths[order], given if given is None else given[order])
        for row, length in enumerate(LENGTHS):
            mine = slice(row, row + 1)
            alone = cif(frames[mine, :length], lengths[mine], given if given is None else given[mine])
            count, place = int(whole.counts[row]), order.tolist().index(row)
            assert alone.counts.tolist() == [count] and int(shuffled.counts[place]) == count
            assert torch.equal(alone.alpha[0], whole.alpha[row, :length])
            for other in (alone.vectors[0], shuffled.vectors[place]):
                torch.testing.assert_close(other[:count], whole.vectors[row, :count], rtol=0, atol=1e-10)


def test_tokens_without_a_reference_are_as_many_as_the_weights_say():
    torch.manual_seed(0)
    cif = Cif(8, 6).double()
    frames = torch.randn(3, 30, 8, dtype=torch.float64)
    lengths = torch.tensor([30, 12, 0])
    output = cif(frames, lengths)
    expected = [
        int((frames[i, :n, -1].sigmoid().sum() + 0.5).floor()) for i, n in enumerate(lengths.tolist())
    ]
    assert output.counts.tolist() == expected and expected[0] > expected[1] > expected[2] == 0
    first = cif(frames, lengths, longest=4)
    assert first.counts.tolist() == [4, 4, 0]
    torch.testing.assert_close(first.vectors[0], output.vectors[0, :4])


def test_half_precision_is_integrated_in_single():
    frames = torch.randn(2, 50, 8).bfloat16()
    lengths, counts = torch.tensor([50, 31]), torch.tensor([9, 4])
    cif = Cif(8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        output = cif(frames, lengths, counts)
    assert output.alpha.dtype == torch.float32
    scaled = scale(output.alpha, lengths, counts)
    assert integrate(output.content, scaled, lengths, counts).dtype == torch.float32
