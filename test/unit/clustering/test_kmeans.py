"""k-means against brute force in float64, published properties, and scikit-learn where it is installed."""

import numpy as np
import pytest
import torch

from speechkit.clustering.kmeans import Config, assign, fit, lloyd, lloyd_step, plus_plus
from speechkit.errors import InputError


def gaussians(count=900, clusters=3, dim=4, spread=0.3, seed=0):
    """Frames around well separated centres far from the origin, and which centre each is from."""
    random = np.random.default_rng(seed)
    centres = 500 + 10 * np.eye(clusters, dim) + 20 * np.arange(clusters)[:, None]
    owner = random.integers(0, clusters, count)
    frames = centres[owner] + spread * random.standard_normal((count, dim))
    return torch.from_numpy(frames.astype(np.float32)), owner


def blob(count=3000, dim=7, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def brute_force(frames, centres):
    distances = ((frames.double()[:, None] - centres.double()[None]) ** 2).sum(-1)
    return distances.argmin(1), distances.min(1).values


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_assignment_is_the_nearest_centre(offset):
    frames, centres = 5 * blob(5000, 39) + offset, 5 * blob(100, 39, seed=1) + offset
    labels, distances = assign(frames, centres)
    expected, nearest = brute_force(frames, centres)
    assert torch.equal(labels, expected)
    torch.testing.assert_close(distances.double(), nearest, rtol=1e-4, atol=1e-3)


def test_ties_go_to_the_lowest_index():
    centres = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    assert assign(torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.0, 0.5]]), centres)[0].tolist() == [0, 0, 1]
    assert assign(torch.zeros(9000, 2), centres)[0].sum() == 0


def test_no_frames_have_no_labels():
    labels, distances = assign(torch.zeros(0, 3), torch.randn(4, 3))
    assert labels.shape == distances.shape == (0,) and labels.dtype == torch.int64


def test_a_step_moves_centres_to_the_means_of_their_frames():
    frames, centres = blob(500, 5), blob(6, 5, seed=2)
    moved, inertia, empty = lloyd_step(frames, centres)
    labels, nearest = brute_force(frames, centres)
    expected = torch.stack([frames[labels == k].double().mean(0) for k in range(6)])
    torch.testing.assert_close(moved.double(), expected, rtol=0, atol=1e-5)
    assert inertia == pytest.approx(float(nearest.mean()), rel=1e-5) and empty == 0


def test_inertia_never_rises():
    frames = blob(4000, 6)
    centres = frames[:20]
    history = []
    for _ in range(30):
        centres, inertia, _ = lloyd_step(frames, centres)
        history.append(inertia)
    assert all(b <= a * (1 + 1e-6) for a, b in zip(history, history[1:])) and history[-1] < 0.9 * history[0]
    assert lloyd(frames, frames[:20], 29, 0.0)[1] == history[: len(lloyd(frames, frames[:20], 29, 0.0)[1])]


def test_an_empty_cluster_takes_the_farthest_frame():
    frames = torch.cat([blob(50, 2), torch.tensor([[40.0, 0.0], [0.0, 30.0]])])
    centres = torch.tensor([[0.0, 0.0], [500.0, 500.0], [900.0, 900.0]])
    moved, _, empty = lloyd_step(frames, centres)
    assert empty == 2 and moved[1:].tolist() == [[40.0, 0.0], [0.0, 30.0]]
    assert lloyd(frames, centres, 20, 1e-4)[2] == 0


@pytest.mark.parametrize("seed", range(3))
def test_separated_gaussians_are_recovered(seed):
    frames, owner = gaussians(seed=seed)
    means = np.stack([frames[owner == k].double().mean(0).numpy() for k in range(3)])
    fitted = fit(frames.clone(), Config(clusters=3, restarts=2, seed=seed))
    labels = assign(frames, fitted.centres)[0].numpy()
    pairs = {(int(a), int(b)) for a, b in zip(owner, labels)}
    assert len(pairs) == 3 == len({b for _, b in pairs})  # a purity of 1
    for own, label in pairs:
        np.testing.assert_allclose(fitted.centres[label].numpy(), means[own], atol=1e-3)
    expected = float(brute_force(frames, fitted.centres)[1].mean())
    assert fitted.inertia == pytest.approx(expected, rel=1e-3) and fitted.empty == 0


def test_deterministic_for_a_seed():
    runs = [fit(blob(), Config(clusters=10, restarts=3, seed=seed)).centres for seed in (5, 5, 6)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_growing_samples_end_on_all_frames():
    """3000 frames of 8 clusters go through samples of 1024 and 3000."""
    frames = blob()
    fitted = fit(frames.clone(), Config(clusters=8, restarts=2, tolerance=0.0, iterations=60))
    again, history, _ = lloyd(frames - frames.mean(0), fitted.centres - frames.mean(0), 1, 0.0)
    assert history[-1] == pytest.approx(fitted.history[-1], rel=1e-3)
    assert fitted.history == sorted(fitted.history, reverse=True)


def test_plus_plus_prefers_what_is_far():
    """Of three heaps, one of a single frame, every restart finds all; uniform draws would miss it."""
    frames = torch.cat([blob(500, 2), blob(500, 2) + 50, torch.tensor([[400.0, 400.0]])])
    for seed in range(20):
        chosen = plus_plus(frames, 3, torch.Generator().manual_seed(seed))
        assert sorted(min(int(i) // 500, 2) for i in chosen) == [0, 1, 2]


def test_equal_frames_end():
    fitted = fit(torch.ones(50, 3), Config(clusters=4, restarts=2))
    assert fitted.inertia == 0 and torch.equal(fitted.centres[0], torch.ones(3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_frames_that_are_not_finite(value):
    frames = blob(100)
    frames[71, 2] = value
    with pytest.raises(InputError, match="not finite"):
        fit(frames, Config(clusters=4))


def test_too_few_frames():
    with pytest.raises(InputError, match="7 frames are too few for 8 clusters"):
        fit(blob(7), Config(clusters=8))


def test_inertia_is_scikit_learn_s():
    cluster = pytest.importorskip("sklearn.cluster")
    frames = blob(6000, 10) * torch.linspace(0.2, 3, 10)
    ours = fit(frames.clone(), Config(clusters=25, restarts=5)).inertia
    theirs = cluster.KMeans(25, n_init=5, random_state=0).fit(frames.numpy()).inertia_ / len(frames)
    assert ours == pytest.approx(theirs, rel=0.01)
