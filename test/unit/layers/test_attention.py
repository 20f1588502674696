"""Attention against its equation, written out for one utterance at a time."""

import math

import pytest
import torch

from speechkit.layers.attention import (
    RelativeSelfAttention,
    SelfAttention,
    attend,
    fits_kernel,
    relative_shift,
)
from speechkit.layers.masks import Packing
from speechkit.layers.positions import RelativePositions, RotaryPositions, rotate, sinusoids

HEADS, SIZE = 2, 6
DIM = HEADS * SIZE
LENGTHS = [5, 1, 5, 5, 8, 0, 3]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def softmax_attention(q, k, v, bias=0.0):
    """Equation 1 of Vaswani et al. (2017) for `(T, H, d)` tensors."""
    scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.size(-1)) + bias
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1), v)


def test_attend_equals_the_equation_for_every_utterance():
    packing = Packing(torch.tensor(LENGTHS))
    q, k, v = torch.randn(3, packing.total, HEADS, SIZE)
    pieces = [x.split(LENGTHS) for x in (q, k, v)]
    expected = torch.cat([softmax_attention(*piece) for piece in zip(*pieces)])
    torch.testing.assert_close(attend(q, k, v, packing, packing), expected)


def test_attention_dropout_takes_weights_away_and_keeps_the_mean():
    packing = Packing(torch.tensor([400]))
    q, k, v = torch.zeros(400, 1, 1), torch.zeros(400, 1, 1), torch.ones(400, 1, 1)
    out = attend(q, k, v, packing, packing, dropout=0.5)
    assert out.std() > 0 and out.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "dtype, head_dim, dropout, fits",
    [
        (torch.bfloat16, 64, 0.0, True),
        (torch.float16, 256, 0.0, True),
        (torch.bfloat16, 36, 0.0, False),  # heads of the smallest preset: no whole vectors of 16 bytes
        (torch.bfloat16, 264, 0.0, False),
        (torch.bfloat16, 64, 0.1, False),
        (torch.float32, 64, 0.0, False),
    ],
)
def test_what_the_variable_length_kernel_takes(dtype, head_dim, dropout, fits):
    assert fits_kernel(dtype, head_dim, dropout) is fits


def test_self_attention_without_positions():
    module, packing = SelfAttention(DIM, HEADS), Packing(torch.tensor(LENGTHS))
    x = torch.randn(packing.total, DIM)
    q, k, v = module.qkv(x).view(-1, 3, HEADS, SIZE).unbind(1)
    pieces = [y.split(LENGTHS) for y in (q, k, v)]
    expected = module.out(torch.cat([softmax_attention(*piece) for piece in zip(*pieces)]).flatten(1))
    torch.testing.assert_close(module(x, packing), expected)


def test_rotation_turns_pairs_by_time_and_keeps_relative_scores():
    positions = RotaryPositions(SIZE)
    _, turns = positions(torch.zeros(9, DIM), Packing(torch.tensor([9])))
    x = torch.randn(9, HEADS, SIZE)
    turned = rotate(x, turns)
    for pair in range(SIZE // 2):
        angle = torch.arange(9.0) * 10000 ** (-2 * pair / SIZE)
        a, b = x[..., 2 * pair], x[..., 2 * pair + 1]
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        torch.testing.assert_close(turned[..., 2 * pair], a * cos - b * sin)
        torch.testing.assert_close(turned[..., 2 * pair + 1], a * sin + b * cos)
    same = rotate(x[:1].expand(9, -1, -1), turns)
    scores = torch.einsum("ihd,jhd->hij", same, same)
    torch.testing.assert_close(scores[:, 1:, 1:], scores[:, :-1, :-1])  # depends on i - j alone


def test_rotary_self_attention_uses_each_utterances_own_clock():
    module, packing = SelfAttention(DIM, HEADS), Packing(torch.tensor(LENGTHS))
    x = torch.randn(packing.total, DIM)
    _, turns = RotaryPositions(SIZE)(x, packing)
    together = module(x, packing, turns).split(LENGTHS)
    for piece, out in zip(x.split(LENGTHS), together):
        alone = Packing(torch.tensor([len(piece)]))
        torch.testing.assert_close(module(piece, alone, RotaryPositions(SIZE)(piece, alone)[1]), out)


def test_relative_shift_moves_every_distance_to_its_frame():
    frames = 5
    scores = torch.arange(2.0 * frames - 1).expand(1, 1, frames, -1)
    shifted = relative_shift(scores)[0, 0]
    distance = torch.arange(frames)[:, None] - torch.arange(frames)[None]
    assert torch.equal(shifted, (frames - 1 - distance).double())


def test_relative_self_attention_equals_its_equation():
    module, packing = RelativeSelfAttention(DIM, HEADS), Packing(torch.tensor(LENGTHS))
    x = torch.randn(packing.total, DIM)
    scaled, table = RelativePositions(DIM)(x, packing)
    torch.testing.assert_close(scaled, x * math.sqrt(DIM))
    outs = []
    for piece in x.split(LENGTHS):
        q, k, v = module.qkv(piece).view(-1, 3, HEADS, SIZE).unbind(1)
        places = torch.arange(float(len(piece)))
        distances = (places[:, None] - places[None]).flatten()
        r = module.position(sinusoids(distances, DIM)).view(len(piece), len(piece), HEADS, SIZE)
        bias = torch.einsum("ihd,ijhd->hij", q + module.position_bias, r) / math.sqrt(SIZE)
        outs.append(softmax_attention(q + module.content_bias, k, v, bias))
    torch.testing.assert_close(module(x, packing, table), module.out(torch.cat(outs).flatten(1)))


def test_relative_attention_over_padded_tensors_equals_the_packed_one():
    module, packing = RelativeSelfAttention(DIM, HEADS), Packing(torch.tensor([5, 8, 3]))
    x = torch.randn(packing.total, DIM)
    _, table = RelativePositions(DIM)(x, packing)
    q, k, v = module.qkv(x).view(-1, 3, HEADS, SIZE).unbind(1)
    relative = module.position(table).view(len(table), HEADS, SIZE).permute(1, 2, 0)
    hidden = torch.arange(8) >= packing.lengths[:, None]
    padded = [packing.unpack(y) for y in (q + module.content_bias, q + module.position_bias, k, v)]
    out = module.out(packing.pack(module._dense(*padded, relative, 0.0, hidden)).flatten(1))
    torch.testing.assert_close(out, module(x, packing, table))
