"""Codebooks of patches: audio and video tokens to clusters and labels; k-means over chunks."""

import json

import numpy as np
import pytest
import torch
from clips import LOSSLESS, clip_dir, make_clip, noise

from speechkit.bin.__main__ import main
from speechkit.clustering import chunks as chunking
from speechkit.clustering import streaming
from speechkit.clustering.chunks import ChunkReader, draw_chunks
from speechkit.clustering.codebook import Codebook
from speechkit.clustering.frames import Kind, open_source
from speechkit.clustering.kmeans import Config, assign, lloyd_step
from speechkit.clustering.streaming import Keeper, fit_chunks
from speechkit.data.array_records import read_record
from speechkit.data.dataset import BatchReader, Context, tables_of
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.data.label_checks import check_records
from speechkit.data.labels import LabelSet
from speechkit.data.manifest import read_manifest
from speechkit.data.plan import BatchPlan
from speechkit.data.plan import Config as PlanConfig
from speechkit.errors import InputError
from speechkit.frontends import fbank, video_patches
from speechkit.frontends.audio_patches import of_features
from speechkit.frontends.patches import patchify_video
from speechkit.models.av_labels import VIDEO

SECONDS = {"a": 2.0, "b": 1.0, "c": 1.5}


def speechkit(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    """Frames and sound of three clips, and statistics of both."""
    root = tmp_path_factory.mktemp("av")
    common = {"size": (32, 32), "picture": noise, **LOSSLESS}
    clips = {n: make_clip(root / f"clips/{n}.mkv", s, sound=s, **common) for n, s in SECONDS.items()}
    source, out = clip_dir(root / "data", clips), root / "dump"
    assert (
        speechkit("video", "--data", source, "--out", out, "--size", 32, "--audio", "true", "--jobs", 1) == 0
    )
    lfbe = ["name=fbank", "bins=64", "snip_edges=false"]
    assert speechkit("features", "--data", out, "--dump", "false", "--cmvn", "true", "--jobs", 1, *lfbe) == 0
    return out


@pytest.fixture(scope="module")
def books(dump, tmp_path_factory):
    """A codebook of each modality, and labels of the directory."""
    folder = tmp_path_factory.mktemp("km")
    common = ["--data", dump, "--clusters", 6, "--restarts", 1, "--jobs", 1]
    video = ["name=video_patches", "size=32", f"statistics={dump / 'video_stats.json'}"]
    audio = ["name=audio_patches", f"statistics={dump / 'cmvn.json'}"]
    assert speechkit("kmeans", "train", "--out", folder / "video", *common, *video) == 0
    assert speechkit("kmeans", "train", "--out", folder / "audio", *common, *audio) == 0
    for name in ("video", "audio"):
        words = ["--model", folder / name, "--data", dump, "--name", name, "--jobs", 2]
        assert speechkit("kmeans", "apply", *words) == 0
    return folder


def nearest(tokens, centres):
    """By brute force in float64."""
    distances = ((tokens[:, None].astype(np.float64) - centres.astype(np.float64)) ** 2).sum(-1)
    return distances.argmin(1)


def test_labels_of_video_are_those_of_its_patches(dump, books):
    book, data = Codebook.load(books / "video"), read_data_dir(dump)
    stats = json.loads((dump / "video_stats.json").read_text())
    assert book.centres.shape == (6, 2304) and book.kind.rate == 8 and book.kind.offset == 0.25
    counted, used = 0, set()
    for name, seconds in SECONDS.items():
        frames = read_record(data.tables["video_frames.scp"][name])
        scaled = (frames / 255 - stats["mean"]) / stats["std"]
        tokens = patchify_video(torch.from_numpy(scaled)[None])[0].numpy()
        labels = read_record(data.tables["km_video.scp"][name])
        assert labels.dtype == np.uint16 and len(labels) == round(seconds * 6) // 3 * 4
        np.testing.assert_array_equal(labels, nearest(tokens, book.centres))
        counted, used = counted + len(labels), used | set(labels.tolist())
    record = json.loads((dump / "km_video.json").read_text())
    assert (record["frames"], record["used"], record["clusters"]) == (counted, len(used), 6)
    assert record["label_rate"] == 8 and record["features"] == book.kind.config.hash


def test_labels_of_audio_are_those_of_its_patches(dump, books):
    book, data = Codebook.load(books / "audio"), read_data_dir(dump)
    stats = json.loads((dump / "cmvn.json").read_text())
    lfbe = fbank.Config(bins=64, snip_edges=False)
    config = of_features(lfbe, stats)
    assert book.kind.config == config and book.kind.rate == 100 / 3
    assert json.loads((dump / "km_audio.json").read_text())["features"] == config.hash
    from speechkit.data.audio import read_audio

    for name, seconds in SECONDS.items():
        features = fbank.build(lfbe)(read_audio(data.wav[name]))
        white = ((features - stats["mean"]) / stats["std"]).clip(-1.2, 1.2)
        tokens = white[: len(white) // 3 * 3].reshape(-1, 192)
        labels = [int(x) for x in data.tables["km_audio.txt"][name].split()]
        assert len(labels) == round(seconds * 100) // 3
        np.testing.assert_array_equal(labels, nearest(tokens, book.centres))


def test_batches_hold_both_kinds_of_labels(dump, books):
    fields = ["video", "kmeans_video", "kmeans_audio"]
    assert tables_of(fields) == ["video_frames.scp", "km_video.scp", "km_audio.txt"]
    manifest = read_manifest([dump], ["wav.scp", *tables_of(fields)])
    plan = BatchPlan(manifest.hashes, manifest.seconds, PlanConfig(seconds=100.0), shuffle=False)
    batch = BatchReader(Context(manifest), fields)(plan.row(0)[0]).batch
    entries = read_data_dir(dump).tables["km_video.scp"]
    for place, name in enumerate(batch.ids):
        count = int(batch["video"].lengths[place]) // 3 * 4
        labels = batch["kmeans_video"]
        assert int(labels.lengths[place]) == count
        assert labels.values[place, :count].tolist() == read_record(entries[name]).tolist()
        assert int(batch["kmeans_audio"].lengths[place]) == round(SECONDS[name] * 100) // 3


def test_labels_of_other_features_are_refused_by_hash(dump, books):
    stats = json.loads((dump / "video_stats.json").read_text())
    scaled = {"mean": stats["mean"], "std": stats["std"]}
    right = video_patches.Config(size=32, **scaled)
    check_records([dump], [LabelSet("kmeans_video", 6, 8.0, right.hash)])
    other = video_patches.Config(size=32, **{**scaled, "mean": [0.5] * 3})
    with pytest.raises(
        InputError, match=f"km_video.json: clusters of other features .*{right.hash}.*{other.hash}"
    ):
        check_records([dump], [LabelSet("kmeans_video", 6, 8.0, other.hash)])
    with pytest.raises(InputError, match="6 clusters, but the model has 7 .*: set model.classes_video"):
        check_records([dump], [LabelSet("kmeans_video", 7, 8.0, right.hash, VIDEO)])


def test_wrong_names_and_missing_frames_are_one_line(dump, books, tmp_path, capsys):
    def fails(status, said, *words):
        capsys.readouterr()
        assert speechkit("kmeans", *words) == status
        err = capsys.readouterr().err
        assert said in err and len(err.splitlines()) == 1, err

    video = ["--model", books / "video", "--data", dump, "--jobs", 1]
    fails(2, "labelled as --name video", "apply", *video)
    fails(
        2, "labelled as --name video", "apply", "--model", books / "audio", "--data", dump, "--name", "video"
    )
    train = ["train", "--data", dump, "--out", tmp_path / "km", "--clusters", 2, "--jobs", 1]
    stats = f"statistics={dump / 'video_stats.json'}"
    fails(1, "statistics of other features", *train, "name=video_patches", stats)  # not of 256 pixels
    fails(1, "give statistics=video_stats.json", *train, "name=video_patches", "size=32")
    given = ["mean=[0,0,0]", "std=[1,1,1]"]
    fails(1, "video.json: other frames", *train, "name=video_patches", "size=48", *given)
    fails(1, "cannot be cut into patches of 16 x 16", *train, "name=video_patches", "size=40", *given)
    bare = tmp_path / "bare"
    bare.mkdir()
    for table in ("wav.scp", "utt2spk", "spk2utt"):
        (bare / table).write_bytes((dump / table).read_bytes())
    fails(
        1,
        "run speechkit video",
        *[bare if w == dump else w for w in train],
        "name=video_patches",
        "size=32",
        *given,
    )


# ---- chunks ------------------------------------------------------------------------------------------


def test_a_sample_is_drawn_evenly_and_parts_are_read(dump, monkeypatch):
    monkeypatch.setattr(chunking, "SPAN", 5)
    stats = json.loads((dump / "video_stats.json").read_text())
    config = video_patches.Config(size=32, mean=stats["mean"], std=stats["std"])
    source = open_source(dump, Kind.of(config))
    chunks = draw_chunks([source], 15, 6, seed=1)
    spans = [span for chunk in chunks for span in chunk]
    assert [sum(span.count for span in chunk) for chunk in chunks] == [10, 5]
    assert sorted(span.utterance for span in spans) == [*SECONDS]
    whole = {name: source.read(name) for name in SECONDS}
    wanted = np.concatenate([whole[s.utterance][s.start : s.start + s.count] for s in spans])
    for jobs in (1, 2):
        read = ChunkReader([source], chunks, slice(None), jobs)
        np.testing.assert_array_equal(torch.cat(list(read(0, 2))).numpy(), wanted)
        np.testing.assert_array_equal(torch.cat(list(read(1, 2))).numpy(), wanted[10:])
    assert draw_chunks([source], 15, 6, seed=1) == chunks != draw_chunks([source], 15, 6, seed=2)
    assert sum(s.count for c in draw_chunks([source], 10**9, 6, 1) for s in c) == 16 + 8 + 12  # all


@pytest.fixture
def mixture():
    """Frames of 12 clusters in chunks of 64."""
    random = torch.Generator().manual_seed(3)
    means = 6 * torch.randn(12, 5, generator=random)
    owners = torch.randint(0, 12, (1024,), generator=random)
    frames = means[owners] + torch.randn(1024, 5, generator=random)
    return frames, lambda start, end: iter(frames[64 * start : 64 * end].split(64))


def test_steps_over_chunks_are_lloyds(mixture, tmp_path):
    frames, read = mixture
    fitted = fit_chunks(read, 16, Config(clusters=12, iterations=6, tolerance=0), Keeper(tmp_path / "s", "k"))
    assert fitted.history == sorted(fitted.history, reverse=True) and fitted.empty == 0
    assert not (tmp_path / "s").exists()
    # One step more, by the function for frames in memory, begins with the inertia that was told.
    _, inertia, _ = lloyd_step(frames, fitted.centres)
    assert inertia == pytest.approx(fitted.inertia, rel=1e-4)
    state = streaming._State.of(fitted.centres)
    for chunk in read(0, 16):
        state.add(chunk)
    moved, _, _ = lloyd_step(frames, fitted.centres)
    torch.testing.assert_close(state.moved(), moved, rtol=1e-5, atol=1e-5)


def test_clusters_without_frames_take_the_farthest(mixture):
    frames, read = mixture
    centres = torch.cat([frames[:3], torch.full((2, 5), 60.0)])
    state = streaming._State.of(centres)
    for chunk in read(0, 16):
        state.add(chunk)
    distances = assign(frames, centres)[1]
    torch.testing.assert_close(state.moved()[3:], frames[distances.topk(2).indices])


def test_a_stopped_training_goes_on_to_the_same_bits(mixture, tmp_path):
    frames, read = mixture
    config = Config(clusters=12, iterations=8)
    whole = fit_chunks(read, 16, config, Keeper(tmp_path / "a", "key"))
    calls = []

    def stops(start, end):
        for place, chunk in enumerate(read(start, end)):
            calls.append(start + place)
            if len(calls) in (9, 40):
                raise InterruptedError
            yield chunk

    for _ in range(2):
        with pytest.raises(InterruptedError):
            fit_chunks(stops, 16, config, Keeper(tmp_path / "b", "key", seconds=0))
    resumed = fit_chunks(stops, 16, config, Keeper(tmp_path / "b", "key", seconds=0))
    assert torch.equal(resumed.centres, whole.centres) and resumed.history == whole.history
    # What another command left is not taken up.
    with pytest.raises(InterruptedError):
        calls.clear()
        fit_chunks(stops, 16, config, Keeper(tmp_path / "c", "other", seconds=0))
    assert Keeper(tmp_path / "c", "key").load(torch.device("cpu")) is None
    assert Keeper(tmp_path / "c", "other").load(torch.device("cpu")) is not None


def test_training_by_chunks_from_the_command_line(dump, tmp_path, capsys):
    video = ["name=video_patches", "size=32", f"statistics={dump / 'video_stats.json'}"]
    words = ["--data", dump, "--clusters", 4, "--batch", 8, "--jobs", 1, "--out", tmp_path / "km"]
    assert speechkit("kmeans", "train", *words, *video) == 0
    assert "4 clusters of 36 frames from 3 utterances" in capsys.readouterr().err
    book = Codebook.load(tmp_path / "km")
    source = open_source(dump, book.kind)
    frames = torch.from_numpy(np.concatenate([source.read(name) for name in SECONDS]))
    distances = assign(frames, torch.from_numpy(book.centres))[1]
    assert book.training["inertia"] == pytest.approx(float(distances.mean()), rel=1e-4)
    assert speechkit("kmeans", "train", *words, *video) == 0
    assert "is up to date" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [".km.kmeans.stamp", "km"]
    words[words.index(4)] = 40
    assert speechkit("kmeans", "train", *words, *video) == 1
    assert "36 frames are too few for 40 clusters" in capsys.readouterr().err
