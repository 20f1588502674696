"""Linear probes: the classifier against its definition, the command on a tiny encoder."""

import json

import numpy as np
import pytest
import torch
from decoding_checkpoints import CONFORMER, make_checkpoint
from factories import write_table
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.decoding.encoder_features import FrozenEncoder
from speechkit.decoding.probe import Discriminant, Labelled, probe


def draw(count, seed=0, classes=4, dim=6):
    """Frames of classes that share a covariance."""
    random = np.random.default_rng(seed)
    shape = np.random.default_rng(1).standard_normal((dim, dim))
    means = 1.5 * np.random.default_rng(2).standard_normal((classes, dim))
    owner = random.choice(classes, count, p=[0.5, 0.3, 0.15, 0.05])
    return torch.from_numpy(
        means[owner] @ shape + random.standard_normal((count, dim)) @ shape
    ), torch.from_numpy(owner)


def test_the_classifier_maximises_gaussian_densities():
    frames, owner = draw(3000)
    found = Discriminant(6, 4)
    for part, classes in zip(frames.split(700), owner.split(700)):
        found.add(part, classes)
    weights, biases = found.solve(shrinkage=0.0)
    x, y = frames.numpy(), owner.numpy()
    means = np.stack([x[y == c].mean(0) for c in range(4)])
    within = (x - means[y]).T @ (x - means[y]) / len(x)
    away = x[:, None] - means
    densities = -0.5 * np.einsum("ncd,de,nce->nc", away, np.linalg.inv(within), away)
    densities += np.log(np.bincount(y) / len(x))
    scores = (frames @ weights + biases).numpy()
    np.testing.assert_allclose(scores - scores[:, :1], densities - densities[:, :1], atol=1e-8)


def test_scikit_learn_s_classifier():
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    frames, owner = draw(2000)
    theirs = analysis.LinearDiscriminantAnalysis(solver="lsqr").fit(frames.numpy(), owner.numpy())
    found = Discriminant(6, 4)
    found.add(frames, owner)
    weights, biases = found.solve(0.0)
    test, _ = draw(1000, seed=9)
    assert ((test @ weights + biases).argmax(1).numpy() == theirs.predict(test.numpy())).all()


def test_a_class_without_frames_is_never_chosen():
    frames, owner = draw(500)
    found = Discriminant(6, 9)
    found.add(frames, owner)
    weights, biases = found.solve()
    assert torch.isfinite(weights).all() and int((frames @ weights + biases).argmax(1).max()) < 4


def loud_or_quiet(folder):
    """A label every 10 ms that the sound itself decides: the loudness of its piece."""
    from speechkit.data.audio import read_audio
    from speechkit.data.kaldi_dir import read_data_dir

    data, rows = read_data_dir(folder), {}
    for name in data.utterances:
        pieces = read_audio(data.wav[name], rate=16000)
        pieces = pieces[: len(pieces) // 160 * 160].reshape(-1, 160)
        rows[name] = " ".join("loud" if np.abs(piece).mean() > 0.1 else "quiet" for piece in pieces)
    write_table(folder / "phones.txt", rows)
    return folder


@pytest.fixture
def world(tmp_path):
    model = make_checkpoint(tmp_path / "model", CONFORMER)
    train = loud_or_quiet(make_dump(tmp_path / "train", 12, seconds=[2.0] * 12))
    test = loud_or_quiet(make_dump(tmp_path / "test", 5, seed=5, prefix="t", seconds=[1.5] * 5))
    return model, train, test


def command(model, train, test, *options):
    return main(
        ["probe", "--model", str(model), "--train", str(train), "--test", str(test), *map(str, options)]
    )


def test_the_command_finds_what_the_sound_says(world, capsys):
    model, train, test = world
    assert command(*world) == 0
    out, err = capsys.readouterr()
    report = json.loads((model / "probe_phones.json").read_text())
    assert [row["layer"] for row in report["layers"]] == [0, 1, 2, 3] and out.count("\n| ") == 4
    assert report["classes"] == 2 and report["unknown"] == 0
    assert report["layers"][0]["accuracy"] > report["chance"] + 0.15
    assert (model / "probe_phones.png").read_bytes().startswith(b"\x89PNG")
    assert "best layer" in err
    first = (model / "probe_phones.json").read_bytes()
    assert command(*world) == 0 and (model / "probe_phones.json").read_bytes() == first


def test_labels_that_the_sound_does_not_decide(world):
    model, train, test = world
    random = np.random.default_rng(0)
    for folder in (train, test):
        rows = dict(line.split(" ", 1) for line in (folder / "phones.txt").read_text().splitlines())
        drawn = {name: " ".join(random.choice(["a", "b"], len(row.split()))) for name, row in rows.items()}
        write_table(folder / "phones.txt", drawn)
    assert command(*world, "--layers", "0,2") == 0
    report = json.loads((model / "probe_phones.json").read_text())
    assert [row["layer"] for row in report["layers"]] == [0, 2]
    assert all(abs(row["accuracy"] - 0.5) < 0.1 for row in report["layers"])


def test_unknown_labels_count_as_wrong(world, capsys):
    model, train, test = world
    rows = dict(line.split(" ", 1) for line in (test / "phones.txt").read_text().splitlines())
    write_table(
        test / "phones.txt", {name: " ".join(["new"] * len(row.split())) for name, row in rows.items()}
    )
    assert command(*world, "--out", test) == 0
    report = json.loads((test / "probe_phones.json").read_text())
    assert report["unknown"] == report["test_frames"] > 0
    assert all(row["accuracy"] == 0 for row in report["layers"])
    assert "labels that training never saw" in capsys.readouterr().err


def test_less_audio_is_spread_over_the_set(world):
    model, train, _ = world
    encoder = FrozenEncoder(model)
    part = Labelled(encoder, train, "phones.txt", 100.0, max_seconds=6.0)
    everything = Labelled(encoder, train, "phones.txt", 100.0)
    assert part.utterances == everything.utterances[::4]
    report = probe(part, everything, [1])
    assert report.test_frames == 4 * report.train_frames
