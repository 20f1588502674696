"""Prediction networks: a step at a time as all at once, nothing seen ahead, memories by row."""

from __future__ import annotations

import pytest
import torch
from transducers import Networks

from speechkit.config import load_config
from speechkit.decoders import prediction_transformer
from speechkit.errors import ProblemsError

KINDS = ["lstm", "stateless", "transformer"]


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_later_labels_change_nothing_before_them(kind):
    network = Networks(kind, 7).prediction
    a, b = network(torch.tensor([[3, 1, 6]])), network(torch.tensor([[3, 1, 2]]))
    assert torch.equal(a[:, :3], b[:, :3]) and not torch.equal(a[:, 3], b[:, 3])


def test_the_stateless_network_forgets_and_the_lstm_does_not():
    pairs = torch.tensor([[1, 2, 3], [4, 2, 3]])
    for kind, same in (("stateless", True), ("lstm", False)):
        a, b = Networks(kind, 7).prediction(pairs)[:, -1]
        assert torch.equal(a, b) == same


@pytest.mark.parametrize("kind", KINDS)
def test_memories_are_by_row_so_that_hypotheses_can_change_places(kind):
    network = Networks(kind, 7).prediction
    _, memory = network.start(2)
    _, memory = network.step(torch.tensor([3, 5]), memory)
    turned = tuple(part.index_select(0, torch.tensor([1, 0, 1])) for part in memory)
    states, _ = network.step(torch.tensor([1, 1, 6]), turned)
    wanted = network(torch.tensor([[5, 1], [3, 1], [5, 6]]))[:, -1]
    torch.testing.assert_close(states, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("context", [1, 4, 64])
def test_a_transformer_remembers_the_last_labels_whatever_their_number(context):
    """In one precision, over many more labels than it sees, rows of different lengths side by side."""
    torch.manual_seed(2)
    sizes = {"dim": 16, "layers": 3, "heads": 2, "feed_forward": 24, "context": context}
    network = prediction_transformer.build(prediction_transformer.Config(**sizes), 9).eval()
    tokens = torch.randint(1, 9, (2, 150))
    whole = network(tokens)
    states, memory = network.start(1)
    shape = [part.shape[1:] for part in memory]
    ahead = network.step(tokens[:1, 0], memory)[1]  # the first row is a label ahead of the second
    memory = tuple(torch.cat(pair) for pair in zip(ahead, memory))
    for u in range(149):
        states, memory = network.step(torch.stack([tokens[0, u + 1], tokens[1, u]]), memory)
        wanted = torch.stack([whole[0, u + 2], whole[1, u + 1]])
        assert (states - wanted).abs().max() < 1e-5
        assert [part.shape[1:] for part in memory] == shape
    assert memory[2].tolist() == [151, 150]


def test_a_transformer_sees_as_far_as_its_blocks_reach():
    torch.manual_seed(2)
    sizes = {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24, "context": 4}
    network = prediction_transformer.build(prediction_transformer.Config(**sizes), 9).double().eval()
    tokens = torch.randint(1, 9, (1, 20))
    last = network(tokens)[0, -1]
    for place in range(20):
        other = tokens.clone()
        other[0, place] = other[0, place] % 8 + 1
        assert torch.equal(network(other)[0, -1], last) == (place < 20 - 2 * (4 - 1) - 1)


@pytest.mark.parametrize("override", ["dim=12", "context=0", "heads=0", "dropout=1"])
def test_sizes_of_a_transformer_that_cannot_be_name_the_key(override):
    with pytest.raises(ProblemsError, match=override):
        load_config(prediction_transformer.Config, overrides=["heads=4", override])


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
