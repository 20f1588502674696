"""Prediction networks: a step at a time as all at once, nothing seen ahead, memories by row."""

from __future__ import annotations

import pytest
import torch
from transducers import Networks


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
def test_a_label_at_a_time_gives_what_all_at_once_give(kind):
    network = Networks(kind, 7).prediction
    tokens = torch.tensor([[3, 1, 6, 2], [5, 5, 4, 1]])
    whole = network(tokens)
    assert whole.shape == (2, 5, network.output_dim)
    states, memory = network.start(2)
    torch.testing.assert_close(states, whole[:, 0], rtol=0, atol=1e-12)
    for u, column in enumerate(tokens.T, 1):
        states, memory = network.step(column, memory)
        torch.testing.assert_close(states, whole[:, u], rtol=0, atol=1e-12)
    assert all(len(part) == 2 for part in memory)


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
def test_later_labels_change_nothing_before_them(kind):
    network = Networks(kind, 7).prediction
    a, b = network(torch.tensor([[3, 1, 6]])), network(torch.tensor([[3, 1, 2]]))
    assert torch.equal(a[:, :3], b[:, :3]) and not torch.equal(a[:, 3], b[:, 3])


def test_the_stateless_network_forgets_and_the_lstm_does_not():
    pairs = torch.tensor([[1, 2, 3], [4, 2, 3]])
    for kind, same in (("stateless", True), ("lstm", False)):
        a, b = Networks(kind, 7).prediction(pairs)[:, -1]
        assert torch.equal(a, b) == same


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
def test_memories_are_by_row_so_that_hypotheses_can_change_places(kind):
    network = Networks(kind, 7).prediction
    _, memory = network.start(2)
    _, memory = network.step(torch.tensor([3, 5]), memory)
    turned = tuple(part.index_select(0, torch.tensor([1, 0, 1])) for part in memory)
    states, _ = network.step(torch.tensor([1, 1, 6]), turned)
    wanted = network(torch.tensor([[5, 1], [3, 1], [5, 6]]))[:, -1]
    torch.testing.assert_close(states, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("combine", ["add", "multiply"])
def test_the_joint_loss_sees_what_the_joint_network_says(combine):
    networks = Networks("lstm", 7, combine)
    frames = torch.randn(1, 3, 5, dtype=torch.float64)
    states = networks.prediction(torch.tensor([[4]]))
    f, g = networks.joint.of_frames(frames)[0], networks.joint.of_states(states)[0]
    grid = networks.joint(f[:, None], g[None])  # (T, U + 1, V)
    assert torch.allclose(grid.exp().sum(-1), torch.ones(3, 2, dtype=torch.float64))
    paths = [
        grid[0, 0, 4] + grid[0, 1, 0] + grid[1, 1, 0] + grid[2, 1, 0],
        grid[0, 0, 0] + grid[1, 0, 4] + grid[1, 1, 0] + grid[2, 1, 0],
        grid[0, 0, 0] + grid[1, 0, 0] + grid[2, 0, 4] + grid[2, 1, 0],
    ]
    assert networks.log_prob(frames[0], [4]) == pytest.approx(float(torch.stack(paths).logsumexp(0)))
