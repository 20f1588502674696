"""Contracts of pre-training: the same updates on any number of ranks, watched terms included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import write_table
from tiny_training import World, on_ranks, rows, weights

SYSTEMS = {
    "wav2vec2": {
        "model__name": "wav2vec2",
        "model__encoder": "{name: wav2vec2, preset: tiny, dim: 16, layers: 3, heads: 2, feed_forward: 24, "
        "conv_channels: [8, 8, 8, 8, 8, 8, 8], pos_conv_kernel: 6, pos_conv_groups: 4, layer_drop: 0.3}",
        "model__quantizer__entries": 20,
        "model__projection_dim": 16,
        "plan__crop_to_shortest": "true",
    },
    "hubert": {
        "model__name": "hubert",
        "model__encoder": "{name: conformer, dim: 16, layers: 1, heads: 2, feed_forward: 16, "
        "mask_embedding: true}",
        "model__mask__length": 3,
        "model__classes": "[12]",
        "model__log_interval": 3,
        "model__unmasked_weight": 0.5,
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """Speech with labels of 100 Hz."""
    made = World(tmp_path_factory.mktemp("world"))
    random = np.random.default_rng(4)
    for folder in (made.train, made.dev):
        counts = (line.split() for line in (folder / "utt2num_samples").read_text().splitlines())
        labels = {name: random.integers(0, 12, 1 + (int(n) - 400) // 160) for name, n in counts}
        write_table(folder / "km.txt", {name: " ".join(map(str, row)) for name, row in labels.items()})
    return made


@pytest.mark.parametrize("system", SYSTEMS)
def test_two_ranks_make_the_updates_of_one(world, system, tmp_path):
    options = {**SYSTEMS[system], "plan__micro_batches": 2, "plan__seconds": 2.5, "loop__max_updates": 8}
    one, two = (world.folder / f"{system}_{ranks}" for ranks in ("one", "two"))
    assert world.run(one.name, **options) == 0
    statuses = on_ranks(2, lambda: world.run(two.name, **options), tmp_path / "log")
    assert statuses == [0, 0], (tmp_path / "log.0").read_text()
    found, expected = weights(two / "step_8"), weights(one / "step_8")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0, msg=name)
    assert found.keys() == expected.keys()
    for kind in ("train", "dev"):
        pairs = list(zip(rows(one, kind), rows(two, kind), strict=True))
        assert pairs
        for a, b in pairs:
            assert a.keys() == b.keys() and "accuracy" in a
            for term in a.keys() - {"kind"}:
                assert a[term] == pytest.approx(b[term], rel=1e-4, abs=1e-6), (kind, a["update"], term)
