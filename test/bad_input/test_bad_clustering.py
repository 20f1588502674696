"""Bad input to `speechkit kmeans`, `probe` and encoder features: one clear line, nothing half-made."""

import json
import shutil

import numpy as np
import pytest
from decoding_checkpoints import CONFORMER, make_checkpoint
from factories import write_table
from tiny_training import make_dump

from speechkit.bin.__main__ import main
from speechkit.data.archive import ArkWriter

MFCC = ["name=mfcc", "deltas=2", "use_energy=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data directory and a k-means model of its MFCCs."""
    folder = tmp_path_factory.mktemp("trained")
    data = make_dump(folder / "data", 6)
    words = [
        "kmeans",
        "train",
        "--data",
        data,
        "--out",
        folder / "km",
        "--clusters",
        5,
        "--restarts",
        1,
        *MFCC,
    ]
    assert main([*map(str, words)]) == 0
    return folder


@pytest.fixture
def world(trained, tmp_path):
    """A copy of both that a test may break; the audio stays where it is."""
    shutil.copytree(trained, tmp_path / "w", ignore=shutil.ignore_patterns("audio"))
    return tmp_path / "w"


def fails(capsys, words, *said, status=1):
    capsys.readouterr()
    assert main([str(word) for word in words]) == status
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1, err
    for text in said:
        assert str(text) in err
    assert "Traceback" not in err


def apply(world, *options):
    return ["kmeans", "apply", "--model", world / "km", "--data", world / "data", "--jobs", 1, *options]


def train(world, *options):
    return ["kmeans", "train", "--data", world / "data", "--out", world / "new", "--restarts", 1, *options]


def dump(world, change=lambda name, frames: frames, record=True):
    """Dumps MFCCs, changed one by one."""
    assert main(["features", "--data", str(world / "data"), "--jobs", "1", *MFCC]) == 0
    from speechkit.data.archive import read_array
    from speechkit.data.kaldi_dir import read_data_dir

    tables = read_data_dir(world / "data").tables
    with ArkWriter(world / "data/feats", "changed") as writer:
        rows = {
            name: writer.write(name, change(name, read_array(entry)))
            for name, entry in tables["feats.scp"].items()
        }
    write_table(world / "data/feats.scp", rows)
    if not record:
        (world / "data/features.json").unlink()


def first(world):
    return (world / "data/utt2spk").read_text().split()[0]


def nothing_written(world):
    assert not (world / "data/km.txt").exists() and not (world / "data/km.json").exists()


def test_features_that_are_not_finite(world, capsys):
    def spoil(name, frames):
        if name == first(world):
            frames[3, 2] = np.nan
        return frames

    dump(world, spoil)
    fails(
        capsys,
        apply(world),
        "1 utterance(s) cannot be used",
        f"utterance {first(world)}: features are not finite",
    )
    nothing_written(world)
    fails(capsys, train(world, "--clusters", 3), f"utterance {first(world)}: features are not finite")
    assert not (world / "new").exists()


def test_features_without_a_frame(world, capsys):
    dump(world, lambda name, frames: frames[:0] if name == first(world) else frames)
    fails(capsys, apply(world), f"utterance {first(world)}: no feature frame")
    nothing_written(world)


def test_features_of_another_dimension(world, capsys):
    dump(world, lambda name, frames: frames[:, :20] if name == first(world) else frames)
    fails(
        capsys,
        apply(world),
        f"utterance {first(world)}: wrong feature dimension: 20, the k-means model takes 39",
    )
    nothing_written(world)


def test_features_shorter_than_the_table_says(world, capsys):
    dump(world, lambda name, frames: frames[:-5] if name == first(world) else frames)
    fails(capsys, train(world, "--clusters", 3), f"utterance {first(world)}: features of shape")


def test_utterances_without_features(world, capsys):
    dump(world)
    rows = (world / "data/feats.scp").read_text().splitlines()
    (world / "data/feats.scp").write_text("\n".join(rows[1:]) + "\n")
    fails(capsys, apply(world), "feats.scp", first(world))
    nothing_written(world)


def test_nothing_to_cluster(world, capsys):
    fails(capsys, train(world), "feats.scp: no such file", "give --config")
    dump(world, record=False)
    fails(capsys, train(world), "features.json: no such file", "--label-rate")
    fails(
        capsys,
        ["kmeans", "train", "--data", world / "none", "--out", world / "x", *MFCC],
        "no such directory",
    )


def test_features_normalised_by_speaker_are_not_made_from_audio(world, capsys):
    words = ["features", "--data", world / "data", "--jobs", 1, "--speaker-cmvn", "true", *MFCC]
    assert main([*map(str, words)]) == 0
    assert main([*map(str, train(world, "--clusters", 3))]) == 0
    shutil.rmtree(world / "data/feats")
    (world / "data/feats.scp").unlink()
    fails(
        capsys,
        ["kmeans", "apply", "--model", world / "new", "--data", world / "data"],
        "no such dumped features (normalised by speaker)",
    )


def test_too_few_frames(world, capsys):
    fails(
        capsys,
        train(world, "--clusters", 100000, "--max-frames", 200000, *MFCC),
        "too few for 100000 clusters",
    )
    fails(capsys, train(world, "--max-frames", 50, *MFCC), "--max-frames 50", status=2)
    fails(capsys, train(world, "--clusters", 0, *MFCC), "clusters=0")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3"])
def test_subspaces_that_are_none(world, capsys, text):
    fails(capsys, train(world, "--subspace", text, *MFCC), f"--subspace {text}", status=2)


def test_more_subspaces_than_dimensions(world, capsys):
    fails(capsys, train(world, "--subspace", "1/40", *MFCC), "only 39 dimensions")


@pytest.mark.parametrize("name", ["a b", "../x", "", "ü"])
def test_names_that_are_no_words(world, capsys, name):
    fails(capsys, apply(world, "--name", name), "--name", status=2)


def test_models_that_are_none(world, capsys):
    fails(
        capsys, ["kmeans", "apply", "--model", world, "--data", world / "data"], "kmeans.json: no such file"
    )
    weights = world / "km/centres.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    fails(capsys, apply(world), f"{world / 'km'}: damaged k-means model")
    weights.unlink()
    fails(capsys, apply(world), "damaged k-means model")
    record = json.loads((world / "km/kmeans.json").read_text())
    (world / "km/kmeans.json").write_text(json.dumps({**record, "format": 2}))
    fails(capsys, apply(world), "later version")
    (world / "km/kmeans.json").write_text("{}")
    fails(capsys, apply(world), "damaged k-means model")


def report(world, *options):
    words = ["kmeans", "report", "--labels", world / "data/km.txt", "--phones", world / "phones.txt"]
    return [*words, *options]


def test_labels_of_the_wrong_rate(world, capsys):
    assert main([*map(str, apply(world))]) == 0
    rows = dict(line.split(" ", 1) for line in (world / "data/km.txt").read_text().splitlines())
    # Twice as many phones as there is audio for: 20 ms labels taken for 10 ms ones.
    write_table(
        world / "phones.txt", {name: " ".join(["a"] * 2 * len(row.split())) for name, row in rows.items()}
    )
    fails(capsys, report(world), "of another length", "is the label rate right (100 and 100 a second)?")
    assert main([*map(str, report(world, "--phone-rate", 200))]) == 0
    fails(capsys, report(world, "--phone-rate", 200, "--label-rate", 25), "is the label rate right")


def test_labels_that_lack_utterances(world, capsys):
    assert main([*map(str, apply(world))]) == 0
    rows = dict(line.split(" ", 1) for line in (world / "data/km.txt").read_text().splitlines())
    write_table(world / "phones.txt", {name: row for name, row in rows.items() if name != first(world)})
    fails(capsys, report(world), f"no row for 1 of the utterances of {world / 'data/km.txt'}: {first(world)}")


def test_labels_that_are_none(world, capsys):
    assert main([*map(str, apply(world))]) == 0
    write_table(world / "phones.txt", {"a": "x"})
    good = (world / "data/km.txt").read_text()
    (world / "data/km.txt").write_text(good.replace(" ", " x", 1))
    fails(capsys, report(world), "km.txt:1: expected whole numbers")
    (world / "data/km.json").unlink()
    (world / "data/km.txt").write_text(good)
    fails(capsys, report(world), "km.json: no such file")
    (world / "data/km.json").write_text('{"label_rate": 0}')
    fails(capsys, report(world), "label_rate is missing or no positive number")
    fails(capsys, ["kmeans", "report", "--labels", world / "x", "--phones", world / "y"], "no such file")


# ---- encoder features and probes ----


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("model") / "model", CONFORMER)


@pytest.mark.parametrize(
    "changes,said",
    [
        (["checkpoint=/no/such"], "/no/such: no such experiment folder"),
        (["layer=7"], "has 3 blocks"),
        (["layer=-1"], "layer=-1"),
        (["layer=first"], "'first' is not one of last"),
        (["device=tpu"], "--device tpu: cannot be used here"),
        (["weights=0123"], "holds another model"),
        (["chunk_seconds=0"], "chunk_seconds=0"),
    ],
)
def test_encoders_that_cannot_be_used(world, model, capsys, changes, said):
    words = [
        "features",
        "--data",
        world / "data",
        "--jobs",
        1,
        "name=encoder",
        f"checkpoint={model}",
        *changes,
    ]
    fails(capsys, words, said)
    assert not (world / "data/feats.scp").exists()


def test_an_encoder_is_asked_for_without_a_checkpoint(world, capsys):
    fails(
        capsys, ["features", "--data", world / "data", "name=encoder"], "checkpoint: required, and not given"
    )


def test_audio_of_less_than_one_window(world, model, capsys):
    import soundfile

    soundfile.write(world / "short.wav", np.zeros(1000, np.float32), 16000)
    for table, value in (("wav.scp", str(world / "short.wav")), ("utt2num_samples", "1000")):
        lines = (world / "data" / table).read_text().splitlines()
        lines[0] = f"{first(world)} {value}"
        (world / "data" / table).write_text("\n".join(lines) + "\n")
    words = ["features", "--data", world / "data", "--jobs", 1, "name=encoder", f"checkpoint={model}"]
    fails(capsys, words, f"utterance {first(world)}: no feature frame: 1000 samples are less than one window")


def test_probes_of_labels_that_do_not_fit(world, model, capsys):
    data = world / "data"
    words = ["probe", "--model", model, "--train", data, "--test", data, "--out", world]
    fails(capsys, words, "phones.txt: no such file")
    assert main([*map(str, apply(world))]) == 0
    fails(capsys, [*words, "--labels", "km.txt", "--label-rate", 50], "is the label rate right?")
    fails(capsys, [*words, "--labels", "km.txt", "--layers", "0,4"], "--layers 0,4", status=2)
    fails(capsys, [*words, "--labels", "km.txt", "--max-hours", 0], "--max-hours", status=2)
    lines = (data / "km.txt").read_text().splitlines()
    (data / "km.txt").write_text("\n".join(lines[1:]) + "\n")
    fails(capsys, [*words, "--labels", "km.txt"], "km.txt", first(world))
    write_table(
        data / "phones.txt", {line.split()[0]: " ".join(["a"] * (len(line.split()) + 1)) for line in lines}
    )
    (data / "km.txt").unlink()
    fails(capsys, words, "1 different label(s); there is nothing to tell apart")
    assert not list(world.glob("probe*"))
