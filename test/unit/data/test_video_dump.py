"""`speechkit video`: frames, sound, statistics and ledger of a data directory; stopping and going on."""

import json
import sys

import numpy as np
import pytest
from clips import LOSSLESS, clip_dir, make_clip, noise
from factories import make_wave, write_table

from speechkit.bin.__main__ import main
from speechkit.data import video_shards
from speechkit.data.array_records import read_record
from speechkit.data.audio import read_audio
from speechkit.data.dataset import BatchReader, Context, tables_of
from speechkit.data.kaldi_dir import read_data_dir
from speechkit.data.ledger import read_ledger
from speechkit.data.manifest import read_manifest
from speechkit.data.plan import BatchPlan
from speechkit.data.plan import Config as PlanConfig
from speechkit.data.video import read_clip
from speechkit.frontends.patches import FrameConfig

SMALL = ["--fps", 6, "--size", 32, "--max-drop", 0.5]
SECONDS = {"a": 2.0, "b": 1.0, "c": 3.0, "d": 1.5}


def run(*words):
    return main(["video", *map(str, words)])


@pytest.fixture
def source(tmp_path):
    clips = {
        name: make_clip(
            tmp_path / f"clips/{name}.mkv", length, size=(32, 40), picture=noise, sound=length, **LOSSLESS
        )
        for name, length in SECONDS.items()
    }
    return clip_dir(tmp_path / "data/x", clips)


@pytest.fixture
def small_pieces(monkeypatch):
    """Two clips to an archive."""
    from speechkit.data import video_dump

    monkeypatch.setattr(video_dump, "PIECE", 2)


def test_frames_and_sound_of_clips(source, tmp_path, capsys, small_pieces):
    out = tmp_path / "dump/x"
    assert run("--data", source, "--out", out, "--audio", "true", "--jobs", 2, *SMALL) == 0
    assert "kept 4 of 4 utterances, 0.002 hours, 45 frames of 32 x 32" in capsys.readouterr().err
    made, given, everything = read_data_dir(out), read_data_dir(source, need_audio=False), []
    for name, length in SECONDS.items():
        clip = read_clip(given.tables["video.scp"][name], FrameConfig(6.0, 32), rate=16000)
        frames = read_record(made.tables["video_frames.scp"][name])
        np.testing.assert_array_equal(frames, clip.frames)
        assert made.tables["utt2num_video_frames"][name] == str(len(frames)) == str(round(length * 6))
        sound = read_audio(made.wav[name], fixed_rate=True)
        np.testing.assert_allclose(sound, clip.sound, atol=1 / 32768)
        assert made.tables["utt2num_samples"][name] == str(len(sound)) == str(round(length * 16000))
        everything.append(frames.reshape(-1, 3) / 255)
    stats, record = (json.loads((out / name).read_text()) for name in ("video_stats.json", "video.json"))
    pixels = np.concatenate(everything)
    np.testing.assert_allclose(stats["mean"], pixels.mean(0), atol=1e-9)
    np.testing.assert_allclose(stats["std"], pixels.std(0), atol=1e-9)
    assert (record["fps"], record["size"], record["frames"], record["utterances"]) == (6.0, 32, 45, 4)
    assert record["config_hash"] == stats["config_hash"]
    assert [fate.utterance for fate in read_ledger(out / "ledger.jsonl") if fate.kept] == [*SECONDS]

    assert run("--data", source, "--out", out, "--audio", "true", *SMALL) == 0
    assert "is up to date" in capsys.readouterr().err
    other = tmp_path / "dump/one"
    assert run("--data", source, "--out", other, "--audio", "true", "--jobs", 1, *SMALL) == 0
    for name in ("video_stats.json", "video.json", "utt2num_video_frames"):
        assert (other / name).read_bytes() == (out / name).read_bytes()
    for path in (out / "video").glob("frames.*"):
        assert (other / "video" / path.name).read_bytes() == path.read_bytes()


def test_a_directory_with_sound_keeps_its_own(source, tmp_path):
    wav = {name: str(make_wave(tmp_path / f"wav/{name}.wav", s)) for name, s in SECONDS.items()}
    write_table(source / "wav.scp", wav)
    write_table(source / "text", dict.fromkeys(SECONDS, "words"))
    assert main(["format", "--data", str(source), "--out", str(tmp_path / "dump/sound"), "--jobs", "1"]) == 0
    assert run("--data", tmp_path / "dump/sound", "--out", tmp_path / "dump/both", "--jobs", 1, *SMALL) == 0
    made, sound = read_data_dir(tmp_path / "dump/both"), read_data_dir(tmp_path / "dump/sound")
    assert made.wav == sound.wav and made.text == sound.text
    assert made.tables["utt2num_samples"] == sound.tables["utt2num_samples"]
    assert len(made.tables["video_frames.scp"]) == 4
    # Audio not yet formatted will do too: it is decoded for its length.
    assert run("--data", source, "--out", tmp_path / "dump/raw", "--jobs", 1, *SMALL) == 0
    assert read_data_dir(tmp_path / "dump/raw").wav == wav


def test_what_cannot_be_used_is_in_the_ledger(source, tmp_path, capsys):
    clips = {name: tmp_path / f"clips/{name}.mkv" for name in SECONDS}
    common = {"size": (32, 40), **LOSSLESS}
    clips["mute"] = make_clip(tmp_path / "clips/mute.mkv", 2.0, **common)
    clips["apart"] = make_clip(tmp_path / "clips/apart.mkv", 2.0, sound=3.5, **common)
    clips["long"] = make_clip(tmp_path / "clips/long.mkv", 9.0, rate=2, sound=9.0, **common)
    clips["short"] = make_clip(tmp_path / "clips/short.mkv", 0.3, sound=0.3, **common)
    clips["hushed"] = make_clip(tmp_path / "clips/hushed.mkv", 0.8, sound=0.02, **common)
    clips["gone"] = tmp_path / "clips/gone.mkv"
    source, out = clip_dir(tmp_path / "data/bad", clips), tmp_path / "dump/bad"
    for table in ("utt2spk", "spk2utt"):
        names = sorted([*clips, "unseen"])
        write_table(source / table, {name: name for name in names})
    words = ["--data", source, "--out", out, "--audio", "true", "--jobs", 1, *SMALL, "--max-seconds", 5]
    assert run(*words, "--max-drop", 0.9) == 0
    fates = {fate.utterance: fate for fate in read_ledger(out / "ledger.jsonl")}
    reasons = {name: fate.reason for name, fate in fates.items() if not fate.kept}
    assert reasons == {
        "mute": "no audio",
        "apart": "video and sound differ in length",
        "long": "too long",
        "short": "too short",
        "hushed": "too short",
        "gone": "missing file",
        "unseen": "no video",
    }
    assert "2.00 s and 3.50 s, --max-difference 1" in fates["apart"].detail
    assert fates["hushed"].detail.startswith("0.020 s of sound, 0.1 s are needed")
    assert read_data_dir(out).utterances == [*SECONDS]
    assert "dropped 7" in capsys.readouterr().err
    # Evaluation sets lose nothing, and each clip has its line.
    assert run(*words, "--kind", "evaluation") == 1
    err = capsys.readouterr().err
    assert "nothing may be dropped" in err and "  mute: no audio" in err and "  gone: missing file" in err


def test_a_stopped_run_goes_on(source, tmp_path, capsys, small_pieces, monkeypatch):
    out = tmp_path / "dump/x"
    words = ["--data", source, "--out", out, "--audio", "true", "--jobs", 1, *SMALL]
    read, seen = video_shards.read_clip, []

    def stop_at_the_third(path, *rest, **options):
        seen.append(options["utterance"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(path, *rest, **options)

    monkeypatch.setattr(video_shards, "read_clip", stop_at_the_third)
    with pytest.raises(BaseException):  # noqa: B017 (an interrupt, or the exit it becomes)
        sys.exit(run(*words))
    assert seen == ["a", "b", "c"] and not (out / "video_frames.scp").exists()
    assert run(*words) == 0
    assert seen == ["a", "b", "c", "c", "d"]
    whole = tmp_path / "dump/whole"
    assert run("--data", source, "--out", whole, "--audio", "true", "--jobs", 1, *SMALL) == 0
    for path in (whole / "video").glob("*.npy"):
        assert (out / "video" / path.name).read_bytes() == path.read_bytes()
    assert not [path for path in (out / "video").iterdir() if path.name.endswith(".tmp")]
    # A clip that changes costs its own archive; fewer clips leave no archive behind.
    make_clip(tmp_path / "clips/d.mkv", 1.0, size=(32, 40), sound=1.0, **LOSSLESS)
    seen.clear()
    assert run(*words) == 0 and seen == ["c", "d"]
    assert read_data_dir(out).tables["utt2num_video_frames"]["d"] == "6"
    for table in ("video.scp", "utt2spk", "spk2utt"):
        lines = (source / table).read_text().splitlines(keepends=True)
        (source / table).write_text("".join(lines[:2]))
    seen.clear()
    assert run(*words) == 0 and seen == []
    assert sorted(p.name for p in (out / "video").glob("frames.*")) == ["frames.00000.npy"]


def test_bad_options_and_directories(source, tmp_path, capsys):
    def fails(status, said, *words):
        capsys.readouterr()
        assert run(*words) == status
        err = capsys.readouterr().err
        assert said in err and "Traceback" not in err and len(err.splitlines()) == 1, err

    out = ["--out", tmp_path / "dump/x"]
    fails(
        1, "no wav.scp; --audio true takes the sound", "--data", source, *out, *SMALL
    )  # there is no sound at all
    fails(2, "size=0", "--data", source, *out, "--size", 0)
    fails(2, "fps=0.0", "--data", source, *out, "--fps", 0)
    fails(1, "also the source", "--data", source, "--out", source, "--audio", "true")
    (source / "video.scp").unlink()
    fails(1, "video.scp: no such file, or empty", "--data", source, *out, "--audio", "true")


def test_batches_of_video(source, tmp_path):
    """uint8, padded, with lengths in frames; of directories without video a length of 0."""
    out = tmp_path / "dump/x"
    assert run("--data", source, "--out", out, "--audio", "true", "--jobs", 1, *SMALL) == 0
    deaf = tmp_path / "dump/deaf"
    wav = {f"z{i}": str(make_wave(tmp_path / f"wav/z{i}.wav", 1.0, seed=i)) for i in range(2)}
    names = {name: name for name in wav}
    write_table(deaf / "wav.scp", wav)
    write_table(deaf / "utt2num_samples", dict.fromkeys(wav, "16000"))
    for table in ("utt2spk", "spk2utt"):
        write_table(deaf / table, names)
    assert tables_of(["video"]) == ["video_frames.scp"]
    tables = ["wav.scp", "video_frames.scp"]
    manifest = read_manifest([out, deaf], tables, partial=["video_frames.scp"])
    assert manifest.absent["video_frames.scp"].tolist() == [False] * 4 + [True] * 2
    reader = BatchReader(Context(manifest), ["video"])
    plan = BatchPlan(manifest.hashes, manifest.seconds, PlanConfig(seconds=100.0), shuffle=False)
    loaded = reader(plan.row(0)[0])
    batch, wanted = loaded.batch, {**{k: round(v * 6) for k, v in SECONDS.items()}, "z0": 0, "z1": 0}
    assert not loaded.bad and sorted(batch.ids) == sorted(wanted)
    padded = batch["video"]
    assert padded.values.shape == (6, 18, 32, 32, 3) and str(padded.values.dtype) == "torch.uint8"
    entries = read_data_dir(out).tables["video_frames.scp"]
    for name, length, values in zip(batch.ids, padded.lengths.tolist(), padded.values):
        assert length == wanted[name] and not values[length:].any()
        if length:
            np.testing.assert_array_equal(values[:length].numpy(), read_record(entries[name]))
    # Alone, those without have no such field; and no video library was needed for any of it.
    alone = read_manifest([out, deaf], tables, partial=["video_frames.scp"]).select(np.array([4, 5]))
    plan = BatchPlan(alone.hashes, alone.seconds, PlanConfig(seconds=100.0), shuffle=False)
    assert "video" not in BatchReader(Context(alone), ["video", "speech"])(plan.row(0)[0]).batch


def test_a_damaged_archive_costs_its_utterances(source, tmp_path):
    out = tmp_path / "dump/x"
    assert run("--data", source, "--out", out, "--audio", "true", "--jobs", 1, *SMALL) == 0
    archive = out / "video/frames.00000.npy"
    archive.write_bytes(archive.read_bytes()[:-100])
    manifest = read_manifest([out], ["wav.scp", "video_frames.scp"])
    plan = BatchPlan(manifest.hashes, manifest.seconds, PlanConfig(seconds=100.0), shuffle=False)
    loaded = BatchReader(Context(manifest), ["video"])(plan.row(0)[0])
    assert sorted(loaded.batch.ids) == ["a", "b", "c"]
    assert [(name, reason) for name, reason, _ in loaded.bad] == [("d", "unreadable video_frames.scp")]
    assert "truncated" in loaded.bad[0][2]


def test_frames_of_another_size_than_the_statistics_are_refused(source, tmp_path):
    from speechkit.data.array_readers import check_frames
    from speechkit.errors import InputError

    out, other = tmp_path / "dump/x", tmp_path / "dump/other"
    assert run("--data", source, "--out", out, "--audio", "true", "--jobs", 1, *SMALL) == 0
    assert run("--data", source, "--out", other, "--audio", "true", "--jobs", 1, *SMALL, "--size", 16) == 0
    stats = json.loads((out / "video_stats.json").read_text())
    check_frames([out, tmp_path], stats)
    check_frames([out, other], None)
    with pytest.raises(InputError, match=f"other/video.json: other frames .*{stats['config_hash']}"):
        check_frames([out, other], stats)


def test_reading_needs_no_video_library():
    import subprocess

    code = (
        "import sys, importlib; sys.modules['av'] = None\n"
        "import speechkit.data.dataset, speechkit.data.video_dump, speechkit.bin.video\n"
        "import speechkit.frontends.patches, speechkit.frontends.video_patches, speechkit.bin.kmeans\n"
        "import speechkit.clustering.labels, speechkit.clustering.streaming\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)
