"""Whole runs: AV-BERT of audio, then recognisers that read it, from folders that may be gone later."""

import shutil

import numpy as np
import pytest
import torch
from factories import write_table
from tiny_training import World, make_dump, rows, weights

from speechkit.bin.__main__ import main
from speechkit.clustering.codebook import Codebook, Subspace
from speechkit.clustering.frames import Kind
from speechkit.data.array_records import RecordWriter
from speechkit.data.feature_record import read_statistics
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.decoding.one_utterance import one_by_one
from speechkit.decoding.recognizer import Recognizer
from speechkit.errors import InputError
from speechkit.files import read_json, write_json
from speechkit.models.assets import Assets
from speechkit.train.checkpoint import load_model

FEATURES = {"features__bins": 20, "features__snip_edges": "false"}
ENCODER = "{modalities: audio, dim: 16, layers: 1, heads: 2, feed_forward: 24}"
AV_BERT = {
    **FEATURES,
    "model__name": "av_bert",
    "model__encoder": ENCODER,
    "model__classes_audio": 12,
    "model__mask__stage_updates": 3,
    "schedule__name": "constant",
    "loop__max_updates": 8,
}
FUSED = {
    **FEATURES,
    "model__name": "ctc",
    "model__encoder": "{name: conformer, dim: 16, layers: 2, heads: 2, feed_forward: 24, kernel: 5, "
    "subsampling: {factor: 2}}",
    "model__specaugment": "{freq_width: 4}",
    "schedule__name": "constant",
    "loop__max_updates": 8,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Speech with labels for every three frames, statistics, and a trained AV-BERT in av/."""
    made = World(tmp_path_factory.mktemp("world"))
    random = np.random.default_rng(4)
    for folder in (made.train, made.dev):
        counts = (line.split() for line in (folder / "utt2num_samples").read_text().splitlines())
        labels = {name: random.integers(0, 12, (int(n) + 80) // 160 // 3) for name, n in counts}
        write_table(folder / "km_audio.txt", {name: " ".join(map(str, row)) for name, row in labels.items()})
    made.cmvn = made.folder / "cmvn.json"
    write_json(made.cmvn, {"mean": [9.0] * 20, "std": [3.0] * 20, "frames": 100})
    assert run(made, "av", cmvn=made.cmvn, **AV_BERT) == 0
    return made


def add_video(folder, seed):
    """A record of frames, 8 x 8 pixels at 6 a second, and one of labels, 4 a slice, for each utterance."""
    random, frames, labels = np.random.default_rng(seed), {}, {}
    counts = (line.split() for line in (folder / "utt2num_samples").read_text().splitlines())
    path = folder.with_suffix(".rec")
    with open(path, "wb") as file:
        writer = RecordWriter(file, path)
        for name, samples in counts:
            pictures = round(6 * int(samples) / 16000)
            images = random.integers(0, 256, (pictures, 8, 8, 3), dtype=np.uint8)
            frames[name] = writer.write(images)
            labels[name] = writer.write(random.integers(0, 9, pictures // 3 * 4, dtype=np.uint16))
    write_table(folder / "video_frames.scp", frames)
    write_table(folder / "km_video.scp", labels)


def run(world, exp, cmvn=None, **options):
    given = ["--cmvn", str(cmvn)] if cmvn else []
    return main(["train", *world.arguments(exp, **options), *given])


def draw(world, action, exp, data, *options):
    """`speechkit picture`."""
    path = world.folder / f"{action}.png"
    common = ["--model", str(world.folder / exp), "--data", str(data), "--out", str(path)]
    assert main(["picture", action, *common, *options]) == 0
    assert path.stat().st_size > 5000


def test_pre_training_logs_what_it_promises(world):
    dev, train = rows(world.folder / "av", "dev")[-1], rows(world.folder / "av", "train")[-1]
    for row in (dev, train):
        assert {"loss_audio", "accuracy_audio", "coverage_audio", "entropy_audio"} <= row.keys()
    assert dev["perplexity_audio"] == pytest.approx(np.exp(dev["loss_audio"]), rel=1e-6)
    assert 2.2 < train["entropy_audio"] <= np.log(12) and "perplexity_audio" not in train
    assert train["coverage_audio"] > rows(world.folder / "av", "train")[0]["coverage_audio"]


def test_a_stopped_run_masks_as_if_it_had_not_been(world):
    assert run(world, "stopped", cmvn=world.cmvn, **{**AV_BERT, "loop__max_updates": 4}) == 0
    assert run(world, "stopped", cmvn=world.cmvn, **AV_BERT) == 0
    found, expected = (weights(world.folder / exp / "step_8") for exp in ("stopped", "av"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    pairs = [rows(world.folder / exp, "train") for exp in ("stopped", "av")]
    assert pairs[0] == pairs[1]


def test_a_recogniser_takes_all_it_needs_from_the_folder(world, capsys):
    gone = world.folder / "gone"
    shutil.copytree(world.folder / "av", gone)
    options = {**FUSED, "model__fusion": f"{{av_bert: {gone}, cache: {world.folder / 'cache'}}}"}
    assert run(world, "fused", **{**options, "loop__max_updates": 4}) == 0
    shutil.rmtree(gone)  # from here on the checkpoints speak for it
    assert run(world, "fused", **options) == 0
    final, read = weights(world.folder / "fused" / "final"), weights(world.folder / "av" / "final")
    names = [name for name in final if name.startswith("fusion.av_bert.")]
    for name in names:
        assert torch.equal(final[name], read[name.replace("fusion.av_bert.", "encoder.")]), name
    assert len(names) == sum(name.startswith("encoder.") for name in read)
    known = Assets.load(world.folder / "fused" / "final" / "assets")
    assert known.cmvn["mean"] == [9.0] * 20 and known.av_bert["encoder"]["dim"] == 16
    index = (world.folder / "cache" / "part0.jsonl").read_text().splitlines()
    assert len(index) == 16 == len(set(index))  # 12 of training and 4 of dev, each once
    shutil.rmtree(world.folder / "cache")
    wav = sorted((world.dev / "audio").glob("*.wav"))[0]
    assert isinstance(Recognizer.load(world.folder / "fused").transcribe(wav), str)
    assert not (world.folder / "cache").exists()
    draw(world, "context", "fused", world.dev)
    options["model__fusion"] = f"{{av_bert: {world.folder / 'av'}, cache: {world.folder / 'cache'}}}"
    assert run(world, "noisy", **options, augment__gain__probability=0.5) not in (0, 75)
    assert "the cache would only grow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features__bins": 24}, "trained on other features"),
        ({"features__snip_edges": "true"}, "snip_edges"),
        ({"model__fusion": "{av_bert: nowhere}"}, "no such experiment folder"),
        ({"model__encoder": "{name: blstm}"}, "reads no other sequence"),
    ],
)
def test_what_does_not_fit_is_refused(world, changes, message, capsys):
    options = {**FUSED, "model__fusion": f"{{av_bert: {world.folder / 'av'}}}", **changes}
    assert run(world, "bad", **options) not in (0, 75)
    assert message in capsys.readouterr().err


def test_other_statistics_or_none_are_refused(world, capsys):
    other, options = (
        world.folder / "other.json",
        {**FUSED, "model__fusion": f"{{av_bert: {world.folder / 'av'}}}"},
    )
    write_json(other, {**read_json(world.cmvn), "mean": [8.0] * 20})
    assert run(world, "bad", cmvn=other, **options) not in (0, 75)
    assert "trained with other statistics" in capsys.readouterr().err
    broken = world.folder / "broken"
    shutil.copytree(world.folder / "av" / "final", broken)
    (broken / "assets" / "cmvn.json").unlink()
    assert run(world, "bad", **{**options, "model__fusion": f"{{av_bert: {broken}}}"}) not in (0, 75)
    assert "statistics of AV-BERT's features are missing" in capsys.readouterr().err
    fused = {**FUSED, "model__fusion": f"{{av_bert: {world.folder / 'fused'}}}"}
    if (world.folder / "fused").exists():
        assert run(world, "bad", **fused) not in (0, 75)
        assert "kind ctc, not av_bert" in capsys.readouterr().err
    assert run(world, "bad", **AV_BERT) not in (0, 75)
    assert "--cmvn" in capsys.readouterr().err
    assert read_statistics(world.cmvn, None)["frames"] == 100


def test_clips_with_and_without_video_are_learnt_from_together(world):
    seen = world.folder / "seen"
    for folder, source, seed in ((seen, world.train, 1), (world.folder / "seen_dev", world.dev, 2)):
        shutil.copytree(source, folder)
        add_video(folder, seed)
    other = make_dump(world.folder / "heard", 6, seed=3, prefix="h")
    counts = (line.split() for line in (other / "utt2num_samples").read_text().splitlines())
    write_table(other / "km_audio.txt", {name: " ".join(["1"] * (int(n) // 480)) for name, n in counts})
    colours = world.folder / "video_stats.json"
    write_json(colours, {"mean": [0.5] * 3, "std": [0.3] * 3})
    options = {
        **AV_BERT,
        "model__encoder": ENCODER.replace("audio,", "audio_video, patch: 4, grid: [2, 2, 2],"),
        "model__classes_video": 9,
        "model__max_video_tokens": 8,
        "model__video_statistics": colours,
        "plan__sources": "folders",
    }
    arguments = world.arguments("both", **options)
    arguments[arguments.index(str(world.train))] = str(seen)
    arguments[arguments.index(str(world.dev))] = str(world.folder / "seen_dev")
    arguments.insert(2, str(other))
    assert main(["train", *arguments, "--cmvn", str(world.cmvn)]) == 0
    train, dev = rows(world.folder / "both", "train"), rows(world.folder / "both", "dev")[-1]
    assert {"perplexity", "perplexity_audio", "perplexity_video", "loss_video", "both"} <= dev.keys()
    assert 1.9 < train[-1]["entropy_video"] <= np.log(9) + 1e-9
    assert any(row["coverage_video"] for row in train)
    assert Assets.load(world.folder / "both" / "final" / "assets").video["mean"] == [0.5] * 3
    centres = np.random.default_rng(0).normal(size=(9, 3 * 4 * 4 * 3)).astype(np.float32)
    Codebook(centres, 144, Subspace(), Kind.unknown(1.0), {}).save(world.folder / "book")
    draw(world, "clusters", "both", world.folder / "seen_dev", "--codebook", str(world.folder / "book"))
    model, config, _ = load_model(world.folder / "both")
    read = one_by_one(model, config, world.folder / "seen_dev")
    names = read_data_dir(world.folder / "seen_dev").utterances
    assert [read(name).ids for name in (None, names[2])] == [[names[0]], [names[2]]]
    with pytest.raises(InputError, match="no utterance 'nobody'"):
        read("nobody")


def test_missing_statistics_of_video_are_refused(world, capsys):
    options = {**AV_BERT, "model__encoder": ENCODER.replace("audio,", "audio_video,")}
    assert run(world, "bad", cmvn=world.cmvn, **options) not in (0, 75)
    assert "model.video_statistics" in capsys.readouterr().err
    options["model__video_statistics"] = str(world.folder / "none.json")
    assert run(world, "bad", cmvn=world.cmvn, **options) not in (0, 75)
    assert "no such statistics" in capsys.readouterr().err
    write_json(world.folder / "none.json", {"mean": 0.5, "std": [0.3] * 3})
    assert run(world, "bad", cmvn=world.cmvn, **options) not in (0, 75)
    assert "none.json: no statistics of three colours" in capsys.readouterr().err


def test_frames_of_another_size_are_told_before_their_labels(world, capsys):
    odd, colours = world.folder / "odd", world.folder / "colours.json"
    shutil.copytree(world.train, odd)
    write_json(odd / "video.json", {"config_hash": "of 32 pixels"})
    write_json(odd / "km_video.json", {"label_rate": 8.0})
    frames = {"config": {"fps": 6.0, "size": 16}, "config_hash": "of 16 pixels"}
    write_json(colours, {"mean": [0.5] * 3, "std": [0.3] * 3, **frames})
    options = {**AV_BERT, "model__encoder": ENCODER.replace("audio,", "audio_video,")}
    arguments = world.arguments("bad", **options, model__video_statistics=colours)
    arguments[arguments.index(str(world.train))] = str(odd)
    assert main(["train", *arguments, "--cmvn", str(world.cmvn)]) not in (0, 75)
    assert "odd/video.json: other frames (configuration of 32 pixels)" in capsys.readouterr().err
