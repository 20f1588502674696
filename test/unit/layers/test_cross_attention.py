"""Attention from one sequence to another against its equation, an utterance at a time."""

import math

import pytest
import torch

from speechkit.errors import InputError
from speechkit.layers.cross_attention import CrossAttention
from speechkit.layers.masks import Packing

HEADS, SIZE, MEMORY = 2, 6, 7
DIM = HEADS * SIZE
FRAMES, TOKENS = [4, 2, 3], [2, 0, 5]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_hand(module, x, memory):
    """Result and weights of one utterance: equation 1 of Vaswani et al. (2017), a head at a time."""
    k, v = module.key_value(module.memory_norm(memory)).chunk(2, dim=-1)
    q = module.query(module.query_norm(x))
    heads, maps = [], []
    for h in range(HEADS):
        part = slice(h * SIZE, (h + 1) * SIZE)
        weights = (q[:, part] @ k[:, part].T / math.sqrt(SIZE)).softmax(-1)
        heads.append(weights @ v[:, part])
        maps.append(weights)
    return module.out(torch.cat(heads, -1)), torch.stack(maps)


@pytest.mark.parametrize("norm", [False, True])
def test_every_utterance_reads_its_own_memory(norm):
    module = CrossAttention(DIM, MEMORY, HEADS, norm=norm)
    packing, memory_packing = Packing(torch.tensor(FRAMES)), Packing(torch.tensor(TOKENS))
    x, memory = torch.randn(sum(FRAMES), DIM), torch.randn(sum(TOKENS), MEMORY)
    out = module(x, packing, memory, memory_packing).split(FRAMES)
    maps = module.maps(x, packing, memory, memory_packing)
    assert maps.shape == (3, HEADS, 4, 5)
    for row, (own, others) in enumerate(zip(x.split(FRAMES), memory.split(TOKENS))):
        if not len(others):
            torch.testing.assert_close(out[row], module.out.bias.expand(len(own), DIM))
            assert not maps[row].any()
            continue
        expected, weights = by_hand(module, own, others)
        torch.testing.assert_close(out[row], expected)
        torch.testing.assert_close(maps[row, :, : len(own), : len(others)], weights)
        assert not maps[row, :, len(own) :].any() and not maps[row, :, :, len(others) :].any()


def test_zero_init_adds_nothing_and_still_learns():
    module = CrossAttention(DIM, MEMORY, HEADS, zero_init=True)
    packing = Packing(torch.tensor([3]))
    out = module(torch.randn(3, DIM), packing, torch.randn(3, MEMORY), packing)
    assert not out.any()
    out.sum().backward()
    assert module.out.weight.grad.abs().sum() > 0


def test_the_gradient_is_that_of_finite_differences():
    module = CrossAttention(4, 3, 2, norm=True)
    packing, memory_packing = Packing(torch.tensor([2, 1])), Packing(torch.tensor([1, 3]))
    inputs = torch.randn(3, 4, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: module(x, packing, y, memory_packing), inputs)


def test_heads_that_do_not_divide_the_dimension_are_refused():
    with pytest.raises(InputError, match="heads=5 does not divide the dimension 12"):
        CrossAttention(DIM, MEMORY, 5)


def clocks():
    """Times of frames and tokens, packed as FRAMES and TOKENS are."""
    return torch.tensor([0, 0.5, 1, 1.5, 0, 1, 0, 2, 4.0]), torch.tensor([0, 1, 0, 1, 2, 3, 4.0])


def test_a_clock_turns_queries_and_keys_by_their_times():
    """Each pair of dimensions by its own rate, so that only the difference of the times counts."""
    module = CrossAttention(DIM, MEMORY, HEADS, clock=True)
    packing, memory_packing = Packing(torch.tensor(FRAMES)), Packing(torch.tensor(TOKENS))
    x, memory = torch.randn(sum(FRAMES), DIM), torch.randn(sum(TOKENS), MEMORY)
    maps = module.maps(x, packing, memory, memory_packing, clocks())
    later = tuple(times + 7.25 for times in clocks())
    torch.testing.assert_close(module.maps(x, packing, memory, memory_packing, later), maps)
    k, _ = module.key_value(memory[2:]).chunk(2, -1)  # the third utterance
    q, (own, others) = module.query(x[6:]), (clocks()[0][6:], clocks()[1][2:])
    for head in range(HEADS):
        score = torch.zeros(3, 5)
        for pair in range(SIZE // 2):
            rate, at = math.pi * 32 ** (-pair / (SIZE // 2)), head * SIZE + 2 * pair
            left, right = (torch.complex(y[:, at], y[:, at + 1]) for y in (q, k))
            turned = torch.polar(torch.ones(3, 5), rate * (own[:, None] - others[None]))
            score += (left[:, None] * turned * right[None].conj()).real
        torch.testing.assert_close(maps[2, head, :3, :5], (score / math.sqrt(SIZE)).softmax(-1))


def test_with_a_clock_attention_begins_at_the_same_time():
    module = CrossAttention(DIM, MEMORY, HEADS, clock=True)
    with torch.no_grad():
        module.query.weight.zero_()
        module.key_value.weight.zero_()
    packing, memory_packing = Packing(torch.tensor([5])), Packing(torch.tensor([9]))
    times = torch.arange(5.0) + 2, torch.arange(9.0)
    maps = module.maps(torch.randn(5, DIM), packing, torch.randn(9, MEMORY), memory_packing, times)[0]
    assert maps.argmax(-1).tolist() == [[2, 3, 4, 5, 6]] * HEADS and maps.amax(-1).min() > 0.5
    plain = module.maps(torch.randn(5, DIM), packing, torch.randn(9, MEMORY), memory_packing)[0]
    torch.testing.assert_close(plain, torch.full_like(plain, 1 / 9))


def test_a_clock_needs_an_even_dimension():
    with pytest.raises(InputError, match="odd dimension"):
        CrossAttention(6, MEMORY, 2, clock=True)
