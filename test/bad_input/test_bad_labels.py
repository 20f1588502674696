"""Frame labels and pre-training options that cannot be right: one line that says what, nothing trained."""

from __future__ import annotations

import json

import pytest
from factories import write_table
from tiny_training import World

from speechkit.bin.__main__ import main

MODEL = {
    "model__name": "hubert",
    "model__encoder__name": "conformer",
    "model__encoder__mask_embedding": "true",
    "model__encoder__dim": 8,
    "model__encoder__layers": 1,
    "model__encoder__heads": 1,
    "model__encoder__feed_forward": 8,
    "model__encoder__subsampling__channels": 2,
    "model__mask__length": 3,
    "model__classes": "[5]",
    "loop__max_updates": 2,
}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, utterances=8, dev=2)
    for folder in (world.train, world.dev):
        label(folder)
    return world


def label(folder, change=lambda i, labels: labels, rate=100):
    """Labels 0 1 2 3 4 0 1 ... for each utterance, changed; None leaves the row out."""
    rows = {}
    for i, row in enumerate((folder / "utt2num_samples").read_text().splitlines()):
        utterance, samples = row.split()
        labels = change(i, [t % 5 for t in range(int(samples) * rate // 16000 - 2)])
        if labels is not None:
            rows[utterance] = " ".join(map(str, labels))
    write_table(folder / "km.txt", rows)


def train(world, **changes):
    return world.run(**{**MODEL, **changes})


def fails(capsys, world, *texts, **changes):
    capsys.readouterr()
    assert train(world, **changes) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for text in texts:
        assert text in error, error
    assert not list((world.folder / "exp").glob("step_*"))


def test_good_labels_train(world):
    assert train(world) == 0


def test_no_labels(world, capsys):
    (world.train / "km.txt").unlink()
    fails(capsys, world, f"{world.train / 'km.txt'}: no such file", "speechkit kmeans makes it")


def test_labels_of_another_name(world, capsys):
    fails(capsys, world, f"{world.train / 'km_deep.txt'}: no such file", model__labels="[kmeans_deep]")


def test_labels_of_the_wrong_rate(world, capsys):
    label(world.train, rate=50)
    fails(capsys, world, "the labels of 2 of 8", "53 labels at 100 Hz for 1.10 s", "model.label_rates")
    label(world.train)
    label(world.dev, rate=50)  # of a second or less, they are not half a second wrong
    fails(capsys, world, "km.txt: 46.4 labels a second, not 100", "model.label_rates")


def test_labels_whose_record_says_otherwise(world, capsys):
    record = world.train / "km.json"
    record.write_text('{"label_rate": 100.0, "clusters": 5}')
    assert train(world, exp="good") == 0
    record.write_text('{"label_rate": 50.0, "clusters": 5}')
    fails(capsys, world, f"{record}: 50.0 labels a second", "expects 100 of kmeans", "model.label_rates")
    record.write_text('{"label_rate": 100.0, "clusters": 7}')
    fails(capsys, world, f"{record}: 7 clusters, but the model has 5 classes", "model.classes")
    record.write_text("[]")
    fails(capsys, world, f"{record}: not a record of labels")


def test_a_label_that_is_no_class(world, capsys):
    label(world.train, lambda i, labels: [*labels[:7], 5, *labels[8:]] if i == 3 else labels)
    utterance = (world.train / "utt2num_samples").read_text().splitlines()[3].split()[0]
    fails(capsys, world, f"utterance {utterance} has the label 5", "the model has 5 classes", "model.classes")


def test_labels_that_are_no_numbers(world, capsys):
    label(world.train, lambda i, labels: ["x"] if i == 0 else labels)
    fails(capsys, world, f"{world.train / 'km.txt'}:1: expected whole numbers separated by spaces (x)")


def test_a_truncated_table(world, capsys):
    path = world.train / "km.txt"
    path.write_bytes(path.read_bytes()[:-5])
    fails(capsys, world, f"{path}:8: no line feed at the end of the file: is it complete?")


def test_labels_of_unknown_utterances(world, capsys):
    path = world.train / "km.txt"
    path.write_text(path.read_text() + "zzz 1 2 3\n")
    fails(capsys, world, f"{path}:9: utterance is not in utt2spk (zzz)")


def test_missing_rows_are_too_many_or_dropped_counted_and_listed(world, capsys):
    label(world.train, lambda i, labels: None if i == 2 else labels)
    fails(capsys, world, "1 of 8 utterances dropped", "no labels in km.txt", "ledger_train.jsonl")
    assert train(world, data__max_dropped=0.3) == 0
    assert "no labels in km.txt" in capsys.readouterr().out
    fates = [json.loads(row) for row in (world.folder / "exp/ledger_train.jsonl").read_text().splitlines()]
    assert [f["reason"] for f in fates if not f["kept"]] == ["no labels in km.txt"] and len(fates) == 8


def test_missing_rows_of_the_dev_set_whatever_the_limit(world, capsys):
    label(world.dev, lambda i, labels: None if i == 1 else labels)
    fails(capsys, world, "dev set", "no labels in km.txt", "nothing may be dropped", data__max_dropped=1)


def test_odd_lengths_are_listed_and_trained_on(world, capsys):
    label(world.train, lambda i, labels: labels[:-20] if i == 1 else labels)
    assert train(world) == 0
    path = world.folder / "exp/odd_labels_train.jsonl"
    assert (
        "1 of 8 utterances of the train set have labels that are more than 0.1 s longer or shorter than "
        in (capsys.readouterr().err.replace("\n", " "))
    )
    (row,) = map(json.loads, path.read_text().splitlines())
    assert row["table"] == "km.txt" and row["excess"] < -0.1


def test_utterances_shorter_than_two_frames(world, capsys):
    import soundfile

    row = (world.train / "wav.scp").read_text().splitlines()[0]
    utterance, path = row.split(maxsplit=1)
    soundfile.write(path, soundfile.read(path)[0][:1500], 16000)
    counts = dict(r.split() for r in (world.train / "utt2num_samples").read_text().splitlines())
    write_table(world.train / "utt2num_samples", {**counts, utterance: "1500"})
    label(world.train)
    fails(capsys, world, f"{utterance}: fewer than 2 frames")
    assert train(world, data__max_dropped=0.3) == 0


def test_changes_of_speed(world, capsys):
    fails(capsys, world, "augment.speeds: frame labels do not follow", augment__speeds="[0.9, 1.0]")


def test_changed_labels_are_not_resumed(world, capsys):
    assert train(world, schedule__name="constant") == 0
    label(world.train, lambda i, labels: labels[::-1])
    capsys.readouterr()
    assert train(world, loop__max_updates=4, schedule__name="constant") == 1
    assert "the train data changed since this checkpoint" in capsys.readouterr().err


def test_crops_of_transcribed_speech(world, capsys):
    assert world.run(plan__crop_seconds=1) == 1
    assert "crops are for pre-training" in capsys.readouterr().err


def test_crops_between_frames(world, capsys):
    fails(
        capsys,
        world,
        "these features advance by 240 samples",
        plan__crop_seconds=1,
        features__frame_shift=15,
        model__input_rate=66.7,
    )


@pytest.mark.parametrize("seconds", [0, -1, "x", 0.05])
def test_crops_of_no_length(world, capsys, seconds):
    capsys.readouterr()
    assert train(world, plan__crop_seconds=seconds) != 0
    assert "crop_seconds" in capsys.readouterr().err


def test_languages_without_utt2lang(world, capsys):
    fails(capsys, world, "every training directory needs utt2lang", plan__sources="languages")


def test_languages_and_shares_train(world):
    ids = [row.split()[0] for row in (world.train / "utt2num_samples").read_text().splitlines()]
    write_table(world.train / "utt2lang", {u: "ces" if i < 6 else "eng" for i, u in enumerate(ids)})
    mixed = {"plan__sources": "languages", "plan__source_power": 0.5, "plan__source_batches": "single"}
    assert train(world, **mixed) == 0


def test_validation_lets_rows_be_missing(world):
    label(world.train, lambda i, labels: None if i == 2 else labels)
    assert main(["validate", str(world.train)]) == 0
