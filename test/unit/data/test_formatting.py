"""Formatting: what comes out, what is dropped, and that it is all or nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
import soundfile
from factories import make_data_dir, make_wave, waveform, write_table

from speechkit.bin.__main__ import main
from speechkit.data import formatting
from speechkit.data.archive import read_array
from speechkit.data.audio import read_audio
from speechkit.data.kaldi_dir import read_data_dir, validate_data_dir
from speechkit.data.ledger import read_ledger


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str) -> int:
    return main(["format", *options])


def contents(path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    }


@pytest.mark.parametrize("form", ["flac", "ark"])
@pytest.mark.parametrize("segments", [False, True])
def test_same_samples_whatever_the_way(folder, form, segments, capsys):
    make_data_dir(
        "data/x", utterances=7, speakers=2, seconds=[0.5, 1, 0.7, 0.3, 0.9, 1.1, 0.2], segments=segments
    )
    source = read_data_dir("data/x")
    assert run("--data", "data/x", "--out", "dump/x", "--format", form, "--jobs", "2") == 0
    made = read_data_dir("dump/x")
    assert validate_data_dir("dump/x", read_audio=True) == []
    assert made.utterances == source.utterances and made.segments == {}
    assert made.text == source.text and made.utt2spk == source.utt2spk
    for utterance in source.utterances:
        segment = source.segments.get(utterance)
        whole, rate = soundfile.read(source.wav[source.recording(utterance)], dtype="float32")
        expected = whole[round(segment.start * rate) : round(segment.end * rate)] if segment else whole
        np.testing.assert_array_equal(read_audio(made.wav[utterance]), expected)
        assert made.tables["utt2num_samples"][utterance] == str(len(expected))
        assert made.wav[utterance].startswith("dump/x/audio/")
    assert [fate.kept for fate in read_ledger("dump/x/ledger.jsonl")] == [True] * 7
    assert "kept 7 of 7 utterances" in capsys.readouterr().err


def test_output_does_not_depend_on_jobs_or_on_the_run(folder, monkeypatch):
    make_data_dir("data/x", utterances=11, seconds=0.3, rate=8000, segments=True)
    monkeypatch.setattr(formatting, "PIECE", 1)
    for form in ("flac", "ark"):
        first = None
        for number, jobs in enumerate(("1", "3", "3")):
            run("--data", "data/x", "--out", f"{number}{form}/x", "--jobs", jobs, "--format", form)
            os.rename(f"{number}{form}", "dump")
            made = contents(folder / "dump/x")
            made["wav.scp"] = made["wav.scp"].replace(f"{number}{form}".encode(), b"dump")
            os.rename("dump", f"{number}{form}")
            first = first or made
            assert made == first and len(made) > 7


def test_rate_channel_and_raw(folder):
    make_wave("a.wav", 1.0, rate=8000, channels=2)
    (folder / "b.raw").write_bytes((waveform(0.5) * 32767).astype("<i2").tobytes())
    write_table("data/x/wav.scp", {"u1": "a.wav", "u2": "b.raw"})
    write_table("data/x/utt2spk", {"u1": "s", "u2": "s"})
    write_table("data/x/spk2utt", {"s": "u1 u2"})
    write_table("data/x/text", {"u1": "one", "u2": "two"})
    options = ("--data", "data/x", "--out", "dump/x", "--raw-format", "s16le,16000,1")
    assert run(*options) == 1 and not os.path.exists("dump/x")  # two channels
    assert run(*options, "--channel", "0") == 0
    made = read_data_dir("dump/x")
    assert made.tables["utt2num_samples"] == {"u1": "16000", "u2": "8000"}
    left, _ = soundfile.read("a.wav", dtype="float32")
    expected = read_audio("a.wav", channel=0)
    np.testing.assert_allclose(read_audio(made.wav["u1"]), expected, atol=0.51 / 32768)
    assert np.corrcoef(expected[::2], left[:, 0])[0, 1] > 0.99


def test_pipes_only_when_allowed(folder):
    if shutil.which("sox") is None:
        pytest.skip("sox is not installed")
    make_data_dir("data/x", utterances=2)
    rows = {u: f"sox {e} -t wav - speed 2 |" for u, e in read_data_dir("data/x").wav.items()}
    write_table("data/x/wav.scp", rows)
    assert run("--data", "data/x", "--out", "dump/x") == 1
    assert run("--data", "data/x", "--out", "dump/x", "--allow-pipes", "true") == 0
    assert set(read_data_dir("dump/x").tables["utt2num_samples"].values()) == {"8000"}


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
@pytest.mark.parametrize("link", ["true", "false"])
def test_files_as_wanted_are_taken_over(folder, suffix, link):
    make_data_dir("data/x", utterances=3, suffix=suffix)
    run("--data", "data/x", "--out", "dump/x", "--link", link)
    source, made = read_data_dir("data/x"), read_data_dir("dump/x")
    for utterance in made.utterances:
        assert made.wav[utterance].endswith(f"{utterance}{suffix}")
        assert os.path.samefile(made.wav[utterance], source.wav[utterance]) == (link == "true")
        assert open(made.wav[utterance], "rb").read() == open(source.wav[utterance], "rb").read()


def test_tables_are_carried_over_and_stale_ones_are_not(folder):
    make_data_dir("data/x", utterances=4, segments=True)
    source = read_data_dir("data/x")
    for name, value in {"utt2lang": "en", "word_tags": "", "utt2dur": "1.0", "utt2num_frames": "98"}.items():
        tags = {u: " ".join("-" for _ in source.text[u].split()) for u in source.utterances}
        write_table(
            f"data/x/{name}", tags if name == "word_tags" else dict.fromkeys(source.utterances, value)
        )
    write_table("data/x/spk2gender", dict.fromkeys(source.speakers, "f"))
    write_table("data/x/reco2dur", dict.fromkeys(source.wav, "2.0"))
    assert run("--data", "data/x", "--out", "dump/x") == 0
    made = read_data_dir("dump/x")
    assert set(made.tables) == {"utt2lang", "word_tags", "utt2num_samples", "spk2gender"}


def broken_set(utterances: int = 10):
    make_data_dir("data/x", utterances=utterances, speakers=1, seconds=[0.05, 1.5, *[0.5] * (utterances - 2)])
    wav = read_data_dir("data/x").wav
    data = open(wav["s00-002"], "rb").read()
    open(wav["s00-002"], "wb").write(data[:-10])
    soundfile.write(wav["s00-003"], np.zeros(8000), 16000)


def test_a_training_set_may_lose_a_little(folder, capsys):
    broken_set()
    options = ("--data", "data/x", "--out", "dump/x", "--max-seconds", "1")
    assert run(*options) == 1
    said = capsys.readouterr().err
    for line in ("s00-000: too short", "s00-001: too long", "s00-002: truncated audio"):
        assert line in said
    assert not os.path.exists("dump/x") and os.listdir("dump") == []
    assert run(*options, "--max-drop", "0.5") == 0
    said = capsys.readouterr().err
    assert "kept 7 of 10" in said and "1 truncated audio" in said and "warning: 1 silent: s00-003" in said
    dropped = {fate.utterance: fate.reason for fate in read_ledger("dump/x/ledger.jsonl") if not fate.kept}
    assert dropped == {"s00-000": "too short", "s00-001": "too long", "s00-002": "truncated audio"}
    made = read_data_dir("dump/x")
    assert len(made.utterances) == 7 and set(made.text) == set(made.utterances)


def test_an_evaluation_set_loses_nothing(folder, capsys):
    broken_set()
    options = ("--data", "data/x", "--out", "dump/x", "--kind", "evaluation", "--max-seconds", "1")
    assert run(*options) == 1
    said = capsys.readouterr().err
    assert "nothing may be dropped" in said and "s00-002: truncated audio" in said and "too long" not in said
    assert not os.path.exists("dump/x")


def test_skips_itself_until_something_changes(folder, capsys):
    make_data_dir("data/x", utterances=3)
    options = ("--data", "data/x", "--out", "dump/x")
    run(*options)
    capsys.readouterr()

    def skipped() -> bool:
        assert run(*options) == 0
        return "up to date" in capsys.readouterr().err

    assert skipped()
    main(["features", "--data", "dump/x"])  # later steps add to the directory
    capsys.readouterr()
    assert skipped()
    make_wave("data/x/audio/s00-000.wav", 0.5)  # other audio
    assert not skipped() and read_data_dir("dump/x").tables["utt2num_samples"]["s00-000"] == "8000"
    write_table("data/x/text", dict.fromkeys(read_data_dir("data/x").utterances, "new"))
    assert not skipped() and skipped()
    os.remove(read_data_dir("dump/x").wav["s00-000"])
    assert not skipped()
    os.remove("dump/x/text")
    assert not skipped()
    assert run(*options, "--max-seconds", "20") == 0 and "kept 3" in capsys.readouterr().err
    assert (
        run(*options, "--max-seconds", "20", "--force", "true") == 0 and "kept 3" in capsys.readouterr().err
    )


def test_a_failure_leaves_the_earlier_result(folder):
    make_data_dir("data/x", utterances=3)
    run("--data", "data/x", "--out", "dump/x")
    before = contents(folder / "dump/x")
    open("data/x/audio/s00-000.wav", "wb").close()
    assert run("--data", "data/x", "--out", "dump/x") == 1
    assert contents(folder / "dump/x") == before and os.listdir("dump") == ["x"]


def test_too_small_a_disk_is_told_before_the_work(folder, monkeypatch, capsys):
    make_data_dir("data/x", utterances=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(1, 1, 1000))
    assert run("--data", "data/x", "--out", "dump/x") == 1
    assert "GB are needed" in capsys.readouterr().err and not os.path.exists("dump/x")


def test_killed_half_way_and_started_again(folder):
    make_data_dir("data/x", utterances=300, speakers=3, seconds=1.0, rate=8000, segments=True)
    command = [
        sys.executable,
        "-m",
        "speechkit.bin.__main__",
        "format",
        "--data",
        "data/x",
        "--out",
        "dump/x",
    ]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(formatting.__file__)) + "/.."}
    process = subprocess.Popen([*command, "--jobs", "2"], env=environment)
    for _ in range(2000):
        if list(folder.glob("dump/.x.*.tmp/audio/*/*.flac")):
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not os.path.exists("dump/x") and os.listdir("dump")
    assert run("--data", "data/x", "--out", "dump/x") == 0
    assert os.listdir("dump") == ["x"] and len(read_data_dir("dump/x").utterances) == 300


def test_two_data_sets_in_one_recording_order(folder):
    """Segments that overlap and come in any order of time."""
    make_wave("r.wav", 3.0)
    write_table("data/x/wav.scp", {"r": "r.wav"})
    write_table("data/x/segments", {"a": "r 2.0 3.2", "b": "r 0.0 2.5", "c": "r 1.00005 2"})
    write_table("data/x/utt2spk", dict.fromkeys("abc", "s"))
    write_table("data/x/spk2utt", {"s": "a b c"})
    write_table("data/x/text", dict.fromkeys("abc", "word"))
    assert run("--data", "data/x", "--out", "dump/x") == 0
    assert read_data_dir("dump/x").tables["utt2num_samples"] == {"a": "16000", "b": "40000", "c": "15999"}


def test_features_after_formatting(folder, capsys):
    from speechkit.files import read_json
    from speechkit.frontends import fbank

    make_data_dir("data/x", utterances=5, speakers=2, seconds=[0.5, 0.7, 0.9, 0.4, 0.3])
    run("--data", "data/x", "--out", "dump/x")
    assert main(["features", "--data", "dump/x", "--cmvn", "true", "--jobs", "2"]) == 0
    made = read_data_dir("dump/x")
    extractor = fbank.build(fbank.Config())
    expected = {u: extractor(read_audio(made.wav[u])) for u in made.utterances}
    for utterance, features in expected.items():
        np.testing.assert_array_equal(read_array(made.tables["feats.scp"][utterance]), features)
        assert made.tables["utt2num_frames"][utterance] == str(len(features))
    frames = np.concatenate(list(expected.values())).astype(np.float64)
    cmvn = read_json("dump/x/cmvn.json")
    assert {"mean", "std", "frames", "config"} <= set(cmvn) and cmvn["frames"] == len(frames)
    np.testing.assert_allclose(cmvn["mean"], frames.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(cmvn["std"], frames.std(axis=0), rtol=1e-9)
    assert read_json("dump/x/features.json")["config"]["bins"] == 80
    capsys.readouterr()
    main(["features", "--data", "dump/x", "--cmvn", "true"])
    assert "up to date" in capsys.readouterr().err
    main(["features", "--data", "dump/x", "--compress", "true", "bins=40"])
    first = made.utterances[0]
    assert np.abs(read_array(read_data_dir("dump/x").tables["feats.scp"][first])).max() > 1
    assert read_data_dir("dump/x").tables["feats.scp"][first] != ""


def test_features_by_speaker_and_statistics_only(folder):
    from speechkit.files import read_json

    make_data_dir("data/x", utterances=6, speakers=2, seconds=0.5)
    run("--data", "data/x", "--out", "dump/x")
    assert main(["features", "--data", "dump/x", "--speaker-cmvn", "true", "name=mfcc"]) == 0
    made = read_data_dir("dump/x")
    for members in made.spk2utt.values():
        frames = np.concatenate([read_array(made.tables["feats.scp"][u]) for u in members])
        assert frames.shape[1] == 13
        np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(frames.std(axis=0), 1, atol=1e-4)
    run("--data", "data/x", "--out", "dump/y")
    assert main(["features", "--data", "dump/y", "--cmvn", "true", "--dump", "false"]) == 0
    assert read_json("dump/y/cmvn.json")["frames"] == 6 * 48 and not os.path.exists("dump/y/feats.scp")


def test_features_at_other_speeds_are_those_that_training_would_compute(folder, capsys):
    from speechkit.data.augment import change_speed
    from speechkit.files import read_json
    from speechkit.frontends import fbank

    make_data_dir("data/x", utterances=3, speakers=2, seconds=[0.5, 0.7, 0.9])
    run("--data", "data/x", "--out", "dump/x")
    assert main(["features", "--data", "dump/x", "--cmvn", "true"]) == 0
    statistics = read_json("dump/x/cmvn.json")
    assert main(["features", "--data", "dump/x", "--cmvn", "true", "--speeds", "0.9", "1.125"]) == 0
    made, extractor = read_data_dir("dump/x"), fbank.build(fbank.Config())
    for table, speed in (("feats.scp", 1), ("feats_sp0.9.scp", 0.9), ("feats_sp1.125.scp", 1.125)):
        for utterance, entry in made.tables[table].items():
            wanted = extractor(change_speed(read_audio(made.wav[utterance]), speed))
            np.testing.assert_array_equal(read_array(entry), wanted)
            if speed == 1:
                assert made.tables["utt2num_frames"][utterance] == str(len(wanted))
    assert read_json("dump/x/cmvn.json") == statistics  # of the speech as it is
    assert read_json("dump/x/features.json")["speeds"] == [1, 0.9, 1.125]

    run("--data", "dump/x", "--out", "dump/y")  # formatted anew: no features of the old audio
    assert not [name for name in os.listdir("dump/y") if name.startswith("feats")]
    assert main(["features", "--data", "dump/x", "--speeds", "1.1"]) == 0
    assert sorted(name for name in os.listdir("dump/x") if name.endswith(".scp")) == [
        *("feats.scp", "feats_sp1.1.scp", "wav.scp")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--speeds", "1.0"), "1 is always made"),
        (("--speeds", "0.9", "0.9"), "each once"),
        (("--speeds", "9"), "speeds"),
        (("--speeds", "0.9", "--speaker-cmvn", "true"), "not normalised by speaker"),
        (("--speeds", "0.9", "--dump", "false", "--cmvn", "true"), "dumped features"),
    ],
)
def test_speeds_that_serve_no_training_are_refused(options, message, capsys):
    assert main(["features", "--data", "nowhere", *options]) == 2
    assert message in capsys.readouterr().err
