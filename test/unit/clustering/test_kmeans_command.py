"""`speechkit kmeans` from features to labels and their quality."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from factories import write_table
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.clustering import frames, labels
from speechkit.clustering.codebook import Codebook, Subspace
from speechkit.clustering.frames import Kind, open_source, sample_frames
from speechkit.frontends import mfcc

MFCC = ["name=mfcc", "use_energy=false", "deltas=2"]


def kmeans(action, *options):
    return main(["kmeans", action, *map(str, options)])


def dump(folder, *options):
    assert main(["features", "--data", str(folder), "--jobs", "1", *options]) == 0
    return folder


@pytest.fixture
def data(tmp_path):
    return make_dump(tmp_path / "train", 9)


def rows(path):
    return {line.split()[0]: [int(x) for x in line.split()[1:]] for line in path.read_text().splitlines()}


def expected_labels(folder, book):
    """Nearest centres in float64, of MFCCs made anew."""
    source = open_source(folder, Kind.of(mfcc.Config(use_energy=False, deltas=2)))
    assert not source.dumped
    labels = {}
    for utterance in source.utterances:
        frames = source.read(utterance).astype(np.float64)[:, book.subspace.columns(book.dim)]
        distances = ((frames[:, None] - book.centres.astype(np.float64)) ** 2).sum(-1)
        labels[utterance] = distances.argmin(1).tolist()
    return labels


def test_from_audio_to_labels(data, tmp_path, capsys):
    train = ["--data", data, "--out", tmp_path / "km", "--clusters", 7, "--restarts", 2, "--jobs", 2]
    assert kmeans("train", *train, *MFCC) == 0
    assert "7 clusters of" in capsys.readouterr().err
    book = Codebook.load(tmp_path / "km")
    assert book.centres.shape == (7, 39) and book.kind.rate == 100 and book.kind.offset == 0.0125
    assert kmeans("apply", "--model", tmp_path / "km", "--data", data, "--jobs", 2) == 0
    found = rows(data / "km.txt")
    assert found == expected_labels(data, book)
    record = json.loads((data / "km.json").read_text())
    assert record["label_rate"] == 100 and record["clusters"] == 7 and record["kmeans"] == book.hash
    assert record["frames"] == sum(map(len, found.values()))
    assert record["inertia"] == pytest.approx(book.training["inertia"], rel=1e-4)  # of the same frames

    assert (
        kmeans("train", *train, *MFCC) == 0
        and kmeans("apply", "--model", tmp_path / "km", "--data", data) == 0
    )
    assert capsys.readouterr().err.count("is up to date") == 2


def test_dumped_features_are_used_and_give_the_same(data, tmp_path, capsys):
    assert (
        kmeans("train", "--data", data, "--out", tmp_path / "a", "--clusters", 5, "--restarts", 2, *MFCC) == 0
    )
    dump(data, *MFCC)
    assert open_source(data, Codebook.load(tmp_path / "a").kind).dumped
    assert kmeans("train", "--data", data, "--out", tmp_path / "b", "--clusters", 5, "--restarts", 2) == 0
    one, other = Codebook.load(tmp_path / "a"), Codebook.load(tmp_path / "b")
    assert one.hash == other.hash and one.kind == other.kind


def test_other_dumped_features_do_not_disturb(data, tmp_path):
    """A directory keeps its log-mels for recognition; the MFCCs come from its audio."""
    dump(data)
    out = tmp_path / "km"
    assert kmeans("train", "--data", data, "--out", out, "--clusters", 5, "--restarts", 1, *MFCC) == 0
    assert Codebook.load(out).dim == 39
    assert kmeans("apply", "--model", out, "--data", data, "--name", "mfcc", "--jobs", 1) == 0
    assert rows(data / "km_mfcc.txt") == expected_labels(data, Codebook.load(out))
    assert json.loads((data / "km_mfcc.json").read_text())["label_rate"] == 100


def test_subspaces_together_hold_all_dimensions(data, tmp_path):
    parts = []
    for index in (1, 2):
        out = tmp_path / f"km{index}"
        common = ["--data", data, "--out", out, "--clusters", 4, "--restarts", 1, "--subspace", f"{index}/2"]
        assert kmeans("train", *common, *MFCC) == 0
        assert kmeans("apply", "--model", out, "--data", data, "--name", f"part{index}", "--jobs", 1) == 0
        book = Codebook.load(out)
        assert rows(data / f"km_part{index}.txt") == expected_labels(data, book)
        parts.append(range(39)[book.subspace.columns(39)])
    assert [*parts[0], *parts[1]] == list(range(39)) and abs(len(parts[0]) - len(parts[1])) == 1


def test_samples_are_bounded_seeded_and_do_not_depend_on_processes(data):
    source = open_source(data, Kind.of(mfcc.Config()))
    total = sum(source.frames(utterance) for utterance in source.utterances)
    everything, count = sample_frames([source], 10**9)
    assert len(everything) == total and count == 9
    part, used = sample_frames([source], 120, seed=3)
    assert len(part) == 120 and used < 9
    assert np.array_equal(part, sample_frames([source], 120, seed=3, jobs=2)[0])
    assert not np.array_equal(part, sample_frames([source], 120, seed=4)[0])
    assert {tuple(frame) for frame in part} <= {tuple(frame) for frame in everything}


@dataclass
class OnGpu(mfcc.Config):
    """MFCCs that claim to be computed on a GPU."""

    device: str = "cuda"


@pytest.mark.parametrize("config, asked", [(mfcc.Config(), 3), (OnGpu(), 1)])
def test_one_process_alone_computes_on_a_gpu(data, tmp_path, monkeypatch, config, asked):
    seen = []

    def here(function, items, jobs):
        seen.append(jobs)
        return map(function, items)

    monkeypatch.setattr(frames, "run_parallel", here)
    monkeypatch.setattr(labels, "run_parallel", here)
    kind = Kind.of(config)
    source = open_source(data, kind)
    found, _ = sample_frames([source], 50, jobs=3)
    labels.label_directory(Codebook(found[:5], 13, Subspace(), kind, {}), data, jobs=3)
    assert seen == [asked, asked]


def test_features_of_another_program_need_a_rate(data, tmp_path, capsys):
    dump(data, *MFCC)
    (data / "features.json").unlink()
    train = ["--data", data, "--out", tmp_path / "km", "--clusters", 3, "--restarts", 1]
    assert kmeans("train", *train) == 1 and "give --label-rate" in capsys.readouterr().err
    assert kmeans("train", *train, "--label-rate", 100) == 0
    assert kmeans("apply", "--model", tmp_path / "km", "--data", data, "--jobs", 1) == 0
    assert json.loads((data / "km.json").read_text())["offset"] == 0.005


def test_report_compares_label_sets(data, tmp_path, capsys):
    for clusters in (2, 12):
        out = tmp_path / f"km{clusters}"
        assert (
            kmeans("train", "--data", data, "--out", out, "--clusters", clusters, "--restarts", 1, *MFCC) == 0
        )
        assert kmeans("apply", "--model", out, "--data", data, "--name", str(clusters), "--jobs", 1) == 0
    # Phones that follow from the twelve clusters, each 10 ms later than its MFCC frame begins.
    labels = rows(data / "km_12.txt")
    phones = {u: " ".join(["sil", *("abcdef"[k // 2] for k in row), "sil"]) for u, row in labels.items()}
    write_table(tmp_path / "phones.txt", phones)
    capsys.readouterr()
    both = ["--labels", data / "km_2.txt", data / "km_12.txt", "--phones", tmp_path / "phones.txt"]
    assert kmeans("report", *both, "--out", tmp_path / "quality.json") == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and "phone purity" in table[0]
    coarse, fine = json.loads((tmp_path / "quality.json").read_text()).values()
    assert fine["phone_purity"] == 1 and fine["pnmi"] == pytest.approx(1) and fine["cluster_purity"] < 1
    assert coarse["phone_purity"] < 1 and 0 < coarse["pnmi"] < 1 and coarse["difference"] == 18
